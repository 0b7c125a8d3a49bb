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
    from raydistill.artifact import Artifact as Artifact
    from raydistill.artifact import load as load
    from raydistill.artifact import save as save
    from raydistill.compare import compare as compare
    from raydistill.config import DistillConfig as DistillConfig
    from raydistill.distill import distill as distill
    from raydistill.evaluate import evaluate as evaluate
    from raydistill.method import DistilledSet as DistilledSet
    from raydistill.sweep.run import sweep as sweep
    from raydistill.sweep_config import SweepConfig as SweepConfig

# Imported when first used: `import raydistill` and `raydistill --help` must not wait for torch and Ray.
_HOMES = {
    "Artifact": "artifact",
    "DistillConfig": "config",
    "DistilledSet": "method",
    "SweepConfig": "sweep_config",
    "compare": "compare",
    "distill": "distill",
    "evaluate": "evaluate",
    "load": "artifact",
    "save": "artifact",
    "sweep": "sweep.run",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raydistill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"raydistill.{_HOMES[name]}"), name)


class _Package(ModuleType):
    """Keeps `raydistill.distill`, `evaluate` and `sweep` the functions, though modules have these names as well.

    Importing a submodule sets it as an attribute of its package; here that must not hide the function. (So write
    `from raydistill.sweep.space import optuna_search`, not `import raydistill.sweep.space as space`.)
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
