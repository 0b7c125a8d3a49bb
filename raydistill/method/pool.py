"""A pool of networks of different ages, each trained on the set now and then, and replaced when it is old."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from raydistill.config.solver_settings import Pool as PoolSettings
from raydistill.method.initial_weights import InitialWeights
from raydistill.method.rng import named_generator

BETAS, EPSILON = (0.9, 0.999), 1e-8  # These are Adam's usual ones.


class NetworkPool:
    """A pool of networks for each of P sets.

    All tensors are changed in place, so that a CUDA graph can contain a step. Which network is used when depends on the
    seed and the iteration alone, the same for all sets; a network's age is therefore known without asking the device.

    Args:
        settings: of the pool.
        starts: where the initial weights come from, for each set.
        seed: of the choices.
        generators: the one named `weights` draws new networks, on the device where they are kept.
    """

    def __init__(
        self,
        settings: PoolSettings,
        starts: Sequence[InitialWeights],
        seed: int,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        self.settings, self.starts, self.seed, self.generators = settings, starts, seed, generators
        self.uses = 0
        self._chosen: list[int] = []
        # The first networks give way at different times, so that later there are networks of all ages.
        self.left = [-(-settings.age * (i + 1) // settings.size) for i in range(settings.size)]
        self.weights = torch.stack([self._new() for _ in range(settings.size)], 1)
        self.means, self.squares = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.counts = torch.zeros(settings.size, device=self.weights.device)

    def _new(self) -> Tensor:
        """Draw a network for each set, [P, W]."""
        return torch.cat([start.sample(1, self.generators["weights"]) for start in self.starts])

    def choose(self, count: int) -> Tensor:
        """Return the numbers [count] of different networks for the next iteration."""
        draw = named_generator(self.seed, f"pool {self.uses}")
        chosen = torch.randperm(self.settings.size, generator=draw)[:count]
        self.uses += 1
        self._chosen = chosen.tolist()
        return chosen.to(self.weights.device)

    def train(self, chosen: Tensor, gradient: Tensor) -> None:
        """Take a step with the chosen networks down the gradients of their loss, [P, N, W]."""
        self.counts[chosen] += 1
        weights = self.weights[:, chosen]
        if self.settings.optimizer == "sgd":
            self.weights[:, chosen] = weights - self.settings.lr * gradient
            return
        unbias_mean, unbias_square = (1 - beta ** self.counts[chosen][:, None] for beta in BETAS)
        mean = self.means[:, chosen].lerp(gradient, 1 - BETAS[0])
        square = self.squares[:, chosen].lerp(gradient.square(), 1 - BETAS[1])
        change = mean / unbias_mean / ((square / unbias_square).sqrt() + EPSILON)
        self.weights[:, chosen] = weights - self.settings.lr * change
        self.means[:, chosen], self.squares[:, chosen] = mean, square

    def replace_old(self) -> None:
        """Replace the networks of the last choice that have reached their age by new ones."""
        for number in self._chosen:
            self.left[number] -= 1
            if self.left[number] > 0:
                continue
            self.left[number] = self.settings.age
            self.weights[:, number] = self._new()
            for tensor in (self.means[:, number], self.squares[:, number], self.counts[number]):
                tensor.zero_()

    def replace_exploded(self, member: int) -> None:
        """Replace the networks of one set whose weights are no longer finite by new ones, for the rest of their age."""
        exploded = ~self.weights[member].isfinite().all(1, keepdim=True)
        new = self.starts[member].sample(self.settings.size, self.generators["weights"])
        for tensor, start in ((self.weights, new), (self.means, 0.0), (self.squares, 0.0)):
            tensor[member] = torch.where(exploded, start, tensor[member])

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to resume with the same results."""
        names = ("weights", "means", "squares", "counts")
        return {"uses": self.uses, "left": list(self.left)} | {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict` of a pool with the same settings."""
        self.uses, self.left = state["uses"], list(state["left"])
        for name in ("weights", "means", "squares", "counts"):
            getattr(self, name).copy_(state[name])
