"""Where the initial weights of the networks come from."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raydistill.networks import Network


class InitialWeights(Protocol):
    """A distribution over initial weights."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws [count, P], on the generator's device."""
        ...


@dataclass(frozen=True)
class FixedWeights:
    """One initial network [P], known beforehand: every draw is the same, so one draw is all there is."""

    weights: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """The one network, [1, P], whatever `count`."""
        return self.weights[None]


@dataclass(frozen=True)
class RandomWeights:
    """Fresh draws from the network's initialiser."""

    network: Network

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws [count, P]."""
        return self.network.initial_weights(count, generator)
