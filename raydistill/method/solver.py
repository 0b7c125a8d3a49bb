"""Inner solvers: how networks are trained on sets while these are learned, and the hypergradient through that.

To add one, write a class with the methods of `Solver`, and enter it in `solver_of`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.solver_settings import RidgeSettings
from raydistill.method.distilled import DistilledSet
from raydistill.method.initial_weights import InitialWeights
from raydistill.method.losses import squared_error
from raydistill.method.pool import NetworkPool
from raydistill.method.ridge import RidgeOptions, ridge_hypergradient
from raydistill.method.unroll import gradients_on_sets, hypergradient
from raydistill.networks import Network
from raydistill.system.errors import UserError
from raydistill.system.limits import free_memory


class Solver(Protocol):
    """What the outer loop needs: networks for an iteration, and the hypergradient through what they learn."""

    def draw(self) -> Tensor:
        """Return what says which networks an iteration uses, [P, N, ...]; the only call that draws random numbers."""
        ...

    def gradient(
        self, learned: DistilledSet, drawn: Tensor, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, DistilledSet]:
        """Return the loss [P] on a real batch, and its gradients for P stacked sets, as a mean over the networks drawn.

        A CUDA graph contains the call.
        """
        ...

    def learn(self, shown: Callable[[], DistilledSet], drawn: Tensor) -> None:
        """Let the solver's own networks learn from the sets as they are now; a CUDA graph contains the call.

        `shown` makes the sets as networks see them, augmented, which takes time: a solver that needs them calls it.
        """
        ...

    def finish(self) -> None:
        """End an iteration, outside of a CUDA graph."""
        ...

    def renew(self, member: int) -> None:
        """Make new what the solver keeps for one set and is no longer finite, as the set goes back to its best."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the next iterations depend on, beside the random generators."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`."""
        ...


class Unroll:
    """Gradient steps on the set from new initial weights in each iteration (`method/unroll.py`)."""

    def __init__(
        self, network: Network, starts: Sequence[InitialWeights], nets: int, generators: Mapping[str, torch.Generator]
    ) -> None:
        self.network, self.starts, self.nets, self.generators = network, starts, nets, generators

    def draw(self) -> Tensor:
        """Return initial weights [P, N, W]."""
        return torch.stack([start.sample(self.nets, self.generators["weights"]) for start in self.starts])

    def gradient(
        self, learned: DistilledSet, drawn: Tensor, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, DistilledSet]:
        """Return the loss [P] after all gradient steps, and the hypergradient."""
        return hypergradient(self.network, learned, drawn, images, labels)

    def learn(self, shown: Callable[[], DistilledSet], drawn: Tensor) -> None:
        """Do nothing: the networks of an iteration are not used again."""

    def finish(self) -> None:
        """Do nothing."""

    def renew(self, member: int) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: only the generators go on from iteration to iteration."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class Ridge:
    """Ridge regression on features of a pool of networks, which learn from the set meanwhile (`method/ridge.py`).

    Raises:
        UserError: the pool does not fit into memory.
    """

    def __init__(
        self,
        settings: RidgeSettings,
        network: Network,
        starts: Sequence[InitialWeights],
        nets: int,
        seed: int,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        device = generators["weights"].device
        _check_memory(settings, network, len(starts), device)
        self.options, self.network, self.nets = RidgeOptions.of(settings), network, nets
        self.sets = torch.arange(len(starts), device=device)[:, None]
        self.pool = NetworkPool(settings.pool, starts, seed, generators)

    def draw(self) -> Tensor:
        """Return the numbers of networks in the pool, [P, N], the same for each set."""
        return self.pool.choose(self.nets).expand(len(self.sets), -1)

    def gradient(
        self, learned: DistilledSet, drawn: Tensor, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, DistilledSet]:
        """Return the loss [P] of the last layers that fit the sets, and the hypergradient."""
        weights = self.pool.weights[self.sets, drawn]
        return ridge_hypergradient(self.network, learned, weights, images, labels, self.options)

    def learn(self, shown: Callable[[], DistilledSet], drawn: Tensor) -> None:
        """Let the networks drawn take a step on all images of their set, with the squared error."""
        learned, weights = shown(), self.pool.weights[self.sets, drawn]
        images, labels = learned.images.flatten(1, 2), learned.labels.flatten(1, 2)
        self.pool.train(drawn[0], gradients_on_sets(self.network, squared_error, weights, images, labels))

    def finish(self) -> None:
        """Replace old networks."""
        self.pool.replace_old()

    def renew(self, member: int) -> None:
        """Replace the networks that learned from images of no use."""
        self.pool.replace_exploded(member)

    def state_dict(self) -> dict[str, Any]:
        """Return the pool."""
        return self.pool.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume with the pool of a `state_dict`."""
        self.pool.load_state_dict(state)


def solver_of(
    config: DistillConfig,
    network: Network,
    starts: Sequence[InitialWeights],
    generators: Mapping[str, torch.Generator],
) -> Solver:
    """Return the inner solver that the config names; the generator `weights` draws its networks.

    Raises:
        UserError: it does not go with the network or the memory.
    """
    if isinstance(config.solver, RidgeSettings):
        return Ridge(config.solver, network, starts, config.train_nets, config.seed, generators)
    return Unroll(network, starts, config.train_nets, generators)


def _check_memory(settings: RidgeSettings, network: Network, sets: int, device: torch.device) -> None:
    """Raise UserError unless a pool for each set fits into free memory: weights and, with Adam, two moments."""
    need = 3 * 4 * settings.pool.size * network.num_weights * sets
    free = free_memory(device)
    if need > free:
        raise UserError(
            f"solver.pool.size={settings.pool.size}: needs {need / 2**30:.1f} GiB for networks of "
            f"{network.num_weights:,} weights, and {free / 2**30:.1f} GiB are free; at most "
            f"{int(settings.pool.size * free // need)} would fit"
        )
