"""Sources of initial weights: one fixed network, new draws, or pretrained networks."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.method.population import members
from raydistill.method.rng import named_generator
from raydistill.networks import Network
from raydistill.system.errors import UserError


class InitialWeights(Protocol):
    """A distribution of initial weights [W], with a part to learn with and a part to test with."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw weights [count, W] for an outer iteration, on the generator's device."""
        ...

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """Return [count, W] that no outer iteration uses, fixed by the part ("validation", "test") and the seed."""
        ...


@dataclass(frozen=True)
class FixedWeights:
    """One fixed initial network [W]; all draws are equal, so a draw returns one, however many are asked for."""

    weights: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the one network, [1, W], whatever `count`."""
        return self.weights[None]

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """Return the same network."""
        return self.weights[None]


@dataclass(frozen=True)
class RandomWeights:
    """New draws from the network's initialiser."""

    network: Network

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw [count, W]."""
        return self.network.initial_weights(count, generator)

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """Draw [count, W] from a stream of the part's own, on the CPU, so that they are the same on every device."""
        return self.network.initial_weights(count, named_generator(seed, f"{part} weights"))


@dataclass(frozen=True)
class BankWeights:
    """Draws from networks trained beforehand, [M, W]; the last are kept for validation and, behind those, for tests."""

    networks: Tensor
    validation: int
    test: int

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw different networks of the part to learn with, [count, W]."""
        learn_with = len(self.networks) - self.validation - self.test
        chosen = torch.randperm(learn_with, generator=generator, device=generator.device)[:count]
        return self.networks[chosen]

    def held_out(self, count: int, part: str, seed: int) -> Tensor:
        """Return the first `count` networks of a part, or all that it has."""
        test = len(self.networks) - self.test
        kept = self.networks[test - self.validation : test] if part == "validation" else self.networks[test:]
        return kept[:count]


def population_weights(
    config: DistillConfig, network: Network, device: torch.device, bank: Tensor | None = None
) -> tuple[InitialWeights, ...]:
    """Return where the initial weights come from for each set of the population; errors as of `initial_weights`."""
    if bank is not None and not config.one_network:
        bank = bank.to(device)  # Once for all sets.
    return tuple(initial_weights(member, network, device, bank) for member in members(config))


def initial_weights(
    config: DistillConfig, network: Network, device: torch.device, bank: Tensor | None = None
) -> InitialWeights:
    """Return the source of initial weights that the config names.

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
