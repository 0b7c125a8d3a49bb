"""Trials as Tune shows them to its callbacks, played without Ray."""

from types import SimpleNamespace

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig

CONFIG = validated(
    SweepConfig,
    {
        "name": "t",
        "search": {"steps": {"int": [1, 3]}, "inner_lr": {"loguniform": [0.001, 1.0]}},
        "budget": {"trials": 6, "iterations": 40},
    },
)
POINT = {"steps": 2, "inner_lr": 0.1}


def played(name, status, iterations=None, accuracy=0.5, diverged=0, checkpoint=0, **more):
    """A trial; one without `iterations` has reported nothing. `more` is added to its last result."""
    last = {"trial_id": name}
    if iterations is not None:
        last |= {"iterations": iterations, "val_accuracy": accuracy, "num_images": 20, "diverged": diverged}
        last |= {"config": POINT, "timestamp": 1_800_000_000, "node_ip": "192.0.2.1", "seconds": 1.5} | more
    path = f"somewhere/t/trial-{name}/checkpoint_{checkpoint:06d}"
    return SimpleNamespace(
        trial_id=name,
        status=status,
        config=POINT,
        last_result=last,
        checkpoint=SimpleNamespace(path=path) if iterations is not None else None,
        is_finished=lambda: status in ("TERMINATED", "ERROR"),
        error_file=None,
    )
