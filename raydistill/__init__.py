"""Dataset distillation, swept over a Ray cluster for the best trade between accuracy and number of images.

>>> from raydistill import DistillConfig, distill, evaluate, load
>>> artifact = distill(DistillConfig(iterations=200), out="runs/first")  # doctest: +SKIP
>>> evaluate("runs/first/best.distilled").accuracy  # doctest: +SKIP
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydistill.config.distill_config import DistillConfig
    from raydistill.config.pretrain_config import PretrainConfig
    from raydistill.config.sweep_config import SweepConfig
    from raydistill.evaluation.comparison import compare
    from raydistill.evaluation.testing import evaluate
    from raydistill.method import DistilledSet
    from raydistill.runs.distillation import distill
    from raydistill.runs.pretraining import pretrain
    from raydistill.store.artifact import Artifact, load, save
    from raydistill.sweep.driver import run_sweep
    from raydistill.system.errors import Diverged, UserError

__all__ = [
    "Artifact",
    "DistillConfig",
    "DistilledSet",
    "Diverged",
    "PretrainConfig",
    "SweepConfig",
    "UserError",
    "compare",
    "distill",
    "evaluate",
    "load",
    "pretrain",
    "run_sweep",
    "save",
]

# Torch's threads on a CPU wait for each other in a loop, by default for so long that beside another busy process an
# iteration takes seven times as long (docs/performance.md). libgomp reads its length when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# A name is imported when it is first used: `import raydistill` and `raydistill --help` must not wait for torch and Ray.
_HOMES = {
    "Artifact": "store.artifact",
    "DistillConfig": "config.distill_config",
    "DistilledSet": "method",
    "Diverged": "system.errors",
    "PretrainConfig": "config.pretrain_config",
    "SweepConfig": "config.sweep_config",
    "UserError": "system.errors",
    "compare": "evaluation.comparison",
    "distill": "runs.distillation",
    "evaluate": "evaluation.testing",
    "load": "store.artifact",
    "pretrain": "runs.pretraining",
    "run_sweep": "sweep.driver",
    "save": "store.artifact",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raydistill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"raydistill.{_HOMES[name]}"), name)
