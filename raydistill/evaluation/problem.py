"""What networks learn and are tested on: real data, a network, an objective and initial weights, on one device."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.solver_settings import RidgeSettings
from raydistill.data import Dataset
from raydistill.data.augment import check_transforms
from raydistill.method import Distiller
from raydistill.method.initial_weights import InitialWeights, population_weights
from raydistill.method.objective import Objective, objective_of
from raydistill.networks import Network, build_network
from raydistill.store.bank import Bank, check_bank, load_bank
from raydistill.system.device import pick_device, use_precision
from raydistill.system.errors import UserError

if TYPE_CHECKING:
    from raydistill.method.workers import Workers


@dataclass(frozen=True)
class Problem:
    """What a process computes, made once from settings and data: by a run, by its followers, and by an evaluation."""

    config: DistillConfig
    """The settings; those of the method are for `distiller` alone."""
    data: Dataset
    """The real data, on the device on which everything is computed."""
    network: Network
    """The network that is trained."""
    objective: Objective
    """What a trained network should do."""
    initial_weights: tuple[InitialWeights, ...]
    """Where the weights of the networks come from, for each set of the population."""
    bank: Bank | None = None
    """The pretrained networks that they come from, if they do."""

    @classmethod
    def of(
        cls, config: DistillConfig, data: Dataset, bank: Bank | None = None, device: torch.device | None = None
    ) -> "Problem":
        """Make the problem that settings name, and set the precision of this process for it.

        Args:
            config: the settings.
            data: the real data, on any device.
            bank: the pretrained networks that the settings name; read from there if not given.
            device: where to compute; by default where the settings say.

        Raises:
            UserError: the settings fit neither the data, the bank nor the device.
        """
        device = device or pick_device(config.device)
        use_precision(config.precision, device, config.deterministic)
        if bank is None and config.bank_folder is not None:
            bank = load_bank(config.bank_folder)
        data = data.to(device)
        return cls(config, data, *_parts(config, data, bank, device), bank)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.data.train.labels.device

    def of_member(self, member: int) -> "Problem":
        """Return the problem of one set of the population, the networks of which start from weights of its own."""
        return replace(self, initial_weights=(self.initial_weights[member],))

    def held_out(self, part: Literal["validation", "test"]) -> Tensor:
        """Return the weights [N, W] that networks start from in validation or the test, and in no outer iteration."""
        count = self.config.val_nets if part == "validation" else self.config.test_nets
        return self.initial_weights[0].held_out(count, part, self.config.seed).to(self.device)

    def distiller(self, workers: "Workers | None" = None) -> Distiller:
        """Begin to learn sets for this problem, alone or with other processes."""
        network, weights = _solver_network(self.config, self.data, self.network, self.initial_weights, self.device)
        return Distiller(self.config, network, self.data.train, self.data.num_classes, self.objective, weights, workers)


def check_problem(config: DistillConfig, data: Dataset, bank: Bank | None) -> None:
    """Raise UserError unless settings, data and bank go together; nothing is computed or set for this process."""
    device = torch.device("cpu")
    network, _, weights = _parts(config, data, bank, device)
    _solver_network(config, data, network, weights, device)


def _parts(
    config: DistillConfig, data: Dataset, bank: Bank | None, device: torch.device
) -> tuple[Network, Objective, tuple[InitialWeights, ...]]:
    """Build the network, the objective and the initial weights that settings name."""
    if (config.data.zca is None) != (data.whitening is None):
        found = "are not whitened" if data.whitening is None else "are whitened"
        raise UserError(f"data.zca={config.data.zca}: the given data {found}; load them with the same setting")
    network = build_network(config, data.image_shape, data.num_classes)
    check_transforms(config.data.augment, data.image_shape, "data.augment")
    if bank is not None:
        check_bank(bank.manifest, config, data.class_names, data.image_shape, network)
    objective = objective_of(config, data.class_names)
    networks = bank.networks if bank is not None else None
    return network, objective, population_weights(config, network, device, networks)


def _solver_network(
    config: DistillConfig,
    data: Dataset,
    network: Network,
    weights: tuple[InitialWeights, ...],
    device: torch.device,
) -> tuple[Network, tuple[InitialWeights, ...]]:
    """Return the network that the solver trains, and its initial weights: those given, or of `solver.network`."""
    if not isinstance(config.solver, RidgeSettings):
        return network, weights
    if config.solver.network is not None:
        other = config.model_copy(update={"network": config.solver.network})
        try:
            network = build_network(other, data.image_shape, data.num_classes)
        except UserError as error:  # It begins with `network`.
            raise UserError(f"solver.{error}") from error
        weights = population_weights(other, network, device)
    network.body()  # It raises the error about the last layer.
    return network, weights
