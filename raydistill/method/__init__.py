"""The method, in pure PyTorch: what is learned, the unroll and its hypergradient, the outer loop."""

from raydistill.method.distilled import DistilledSet
from raydistill.method.distiller import Distiller
from raydistill.method.unroll import hypergradient, train

__all__ = ["DistilledSet", "Distiller", "hypergradient", "train"]
