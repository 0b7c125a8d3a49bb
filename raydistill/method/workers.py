"""Several processes that learn the same sets, each with a share of the networks."""

from typing import Protocol

from torch import Tensor


class Workers(Protocol):
    """What a Distiller needs of the others."""

    def share(self, weights: Tensor, dim: int) -> Tensor:
        """This process's part of a tensor, cut along `dim`."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same numbers in each; waits for all of them."""
        ...
