"""A sweep of seconds, and what its trials must be equal to."""

import time

import torch

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.runs.distillation import distill
from raydistill.store.artifact import load

BASE = {"batch_size": 32, "eval_every": 2, "device": "cpu", "choice.steps": 3}


def sweep_config(folder, **update):
    values = {
        "name": "t",
        "base": BASE,
        "search": {"steps": {"int": [1, 2]}, "inner_lr": {"loguniform": [0.01, 0.3]}},
        "known_good": [{"steps": 1, "inner_lr": 0.1}],
        "budget": {"trials": 4, "iterations": 6},
        "scheduler": {"pareto_asha": {"grace": 2, "reduction": 2}},
        "storage": str(folder),
    }
    return validated(SweepConfig, values | update)


def wait_for(what, seconds=15):
    """Returns when `what()` is true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_checkpoint(driver, folder, name="checkpoint_*"):
    """Waits until a trial of the sweep that the process `driver` runs in `folder` has kept such a checkpoint."""

    def kept():
        found = list(folder.glob(f"trial-*/{name}"))
        if not found and driver.poll() is not None:
            said = [stream.read() for stream in (driver.stdout, driver.stderr) if stream]
            raise AssertionError(f"the driver ended with {driver.returncode}: {said}")
        return found

    wait_for(kept, 120)


def same_as_undisturbed(config, folder, digits):
    """Whether an artifact is bit for bit what `distill` makes of the same settings on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = distill(config, data=digits).distilled
    finally:
        torch.set_num_threads(threads)
    found = load(folder).distilled
    return torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)
