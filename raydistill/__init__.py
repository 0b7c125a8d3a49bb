"""Dataset distillation, swept over a Ray cluster for the best trade between accuracy and number of images.

>>> from raydistill import DistillConfig, distill, evaluate, load
>>> artifact = distill(DistillConfig(iterations=200), out="runs/first")  # doctest: +SKIP
>>> evaluate("runs/first/best.distilled").accuracy  # doctest: +SKIP
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydistill.config.distill_config import DistillConfig as DistillConfig
    from raydistill.config.sweep_config import SweepConfig as SweepConfig
    from raydistill.evaluation.accuracy import evaluate as evaluate
    from raydistill.method import DistilledSet as DistilledSet
    from raydistill.runs.comparison import compare as compare
    from raydistill.runs.distillation import distill as distill
    from raydistill.store.artifact import Artifact as Artifact
    from raydistill.store.artifact import load as load
    from raydistill.store.artifact import save as save
    from raydistill.sweep.driver import sweep as sweep

# Imported when first used: `import raydistill` and `raydistill --help` must not wait for torch and Ray.
_HOMES = {
    "Artifact": "store.artifact",
    "DistillConfig": "config.distill_config",
    "DistilledSet": "method",
    "SweepConfig": "config.sweep_config",
    "compare": "runs.comparison",
    "distill": "runs.distillation",
    "evaluate": "evaluation.accuracy",
    "load": "store.artifact",
    "save": "store.artifact",
    "sweep": "sweep.driver",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raydistill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"raydistill.{_HOMES[name]}"), name)


class _Package(ModuleType):
    """Keeps `raydistill.distill`, `evaluate` and `sweep` the functions, though modules have these names as well.

    Importing a submodule sets it as an attribute of its package; here that must not hide the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
