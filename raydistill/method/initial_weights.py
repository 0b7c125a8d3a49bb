"""Where the initial weights of the networks come from."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.method.rng import named_generator
from raydistill.networks import Network
from raydistill.system.errors import UserError


class InitialWeights(Protocol):
    """A distribution over initial weights [W], in two parts: to learn with, and to test with."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws [count, W] for an outer iteration, on the generator's device."""
        ...

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """[count, W] that no outer iteration uses, always the same for a part ("validation", "test") and a seed."""
        ...


@dataclass(frozen=True)
class FixedWeights:
    """One initial network [W], known beforehand: every draw is the same, so one draw is all there is."""

    weights: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """The one network, [1, W], whatever `count`."""
        return self.weights[None]

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """The same network."""
        return self.weights[None]


@dataclass(frozen=True)
class RandomWeights:
    """Fresh draws from the network's initialiser."""

    network: Network

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws [count, W]."""
        return self.network.initial_weights(count, generator)

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """Draws [count, W] from a stream of the part's own, on the CPU, so that they are the same everywhere."""
        return self.network.initial_weights(count, named_generator(seed, f"{part} weights"))


@dataclass(frozen=True)
class BankWeights:
    """Draws from networks trained beforehand, [M, W]; the last are kept for validation and, behind those, for tests."""

    networks: Tensor
    validation: int
    test: int

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Different networks of the part to learn with, [count, W]."""
        learn_with = len(self.networks) - self.validation - self.test
        chosen = torch.randperm(learn_with, generator=generator, device=generator.device)[:count]
        return self.networks[chosen]

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """The first `count` networks of a part, or all it has."""
        test = len(self.networks) - self.test
        kept = self.networks[test - self.validation : test] if part == "validation" else self.networks[test:]
        return kept[:count]


def initial_weights(
    config: DistillConfig, network: Network, device: torch.device, bank: Tensor | None = None
) -> InitialWeights:
    """Where the config says that initial weights come from.

    Fixed ones are drawn here, by the seed; of a bank [M, W] the seed chooses one. Published ones the network draws
    itself.

    Raises:
        UserError: the bank is too small.
    """
    if not config.pretrained or config.published:
        if not config.one_network:
            return RandomWeights(network)
        return FixedWeights(network.initial_weights(1, named_generator(config.seed, "fixed weights", device))[0])
    if bank is None:
        raise UserError(f"weights={config.weights}: needs the networks of a bank")
    if config.one_network:
        return FixedWeights(bank[config.seed % len(bank)].to(device))
    need = config.train_nets + config.val_nets + config.test_nets
    if len(bank) < need:
        raise UserError(
            f"bank={config.bank}: holds {len(bank)} networks, but train_nets={config.train_nets}, "
            f"val_nets={config.val_nets} and test_nets={config.test_nets} need {need}"
        )
    return BankWeights(bank.to(device), config.val_nets, config.test_nets)
