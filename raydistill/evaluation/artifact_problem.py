"""How a distilled set is tested: on which networks and data, where that differs from how it was made."""

from dataclasses import dataclass
from pathlib import Path

import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import AnyRecipe, ScheduleRecipe
from raydistill.config.settings import checked_seed
from raydistill.data import Dataset, check_same, load_dataset
from raydistill.evaluation.problem import Problem
from raydistill.method import DistilledSet
from raydistill.method.initial_weights import BankWeights, FixedWeights, InitialWeights, RandomWeights
from raydistill.method.objective import objective_of
from raydistill.method.recipe import check_recipe
from raydistill.networks import Network, build_network
from raydistill.store.artifact import Artifact
from raydistill.store.bank import check_bank, load_bank
from raydistill.system.device import pick_device, use_precision
from raydistill.system.errors import UserError


@dataclass(frozen=True)
class EvalOptions:
    """What a set is tested with; None stands for how it was made. `raydistill.evaluate` describes each."""

    network: str | None = None
    weights: str | None = None
    bank: str | None = None
    epochs: int | None = None
    recipe: AnyRecipe | str | None = None
    nets: int | None = None
    seed: int = 0
    device: str = "auto"


def problem_of_artifact(
    artifact: Artifact,
    options: EvalOptions,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
) -> tuple[Problem, DistilledSet]:
    """Make the problem that a set is tested on, and set the precision of this process for it.

    Args:
        artifact: the set, and how it was made.
        options: what to test it with.
        data: the real data, where they are loaded already; else they are read from where the artifact says.
        data_dir: folder of downloaded data sets.
        allow_other_data: take other data than those that the set was made from.

    Returns:
        The problem, and the set on the problem's device with the number of passes asked for.

    Raises:
        UserError: the options do not go together, or do not fit the artifact or this machine.
    """
    device = pick_device(options.device)
    config = _tested_config(artifact, options, device)
    if options.epochs is not None and not isinstance(config.recipe, ScheduleRecipe):
        name = config.recipe.name
        raise UserError(f"epochs={options.epochs}: is for recipe=schedule, not {name}, whose length is recipe.steps")
    check_recipe(config.recipe, artifact.distilled)
    distilled = artifact.distilled if options.epochs is None else artifact.distilled.with_epochs(options.epochs)
    network = build_network(config, artifact.image_shape, len(artifact.class_names))
    start = _initial_weights(artifact, config, network, options)
    data = _real_data(artifact, data, data_dir, allow_other_data)
    use_precision(config.precision, device, config.deterministic)
    objective = objective_of(config, data.class_names)
    return Problem(config, data.to(device), network, objective, (start,)), distilled.to(device)


def _tested_config(artifact: Artifact, options: EvalOptions, device: torch.device) -> DistillConfig:
    """Return the artifact's settings, changed as the options say."""
    config = artifact.config
    same = options.network in (None, config.network.name)
    weights = options.weights or ("random_pretrained" if options.bank else config.weights if same else "random")
    if weights not in ("fixed", "random", "fixed_pretrained", "random_pretrained"):
        raise UserError(f"weights={weights}: should be fixed, random or random_pretrained")
    nets = options.nets
    if nets is not None and (nets < 1 or (nets > 1 and weights.startswith("fixed"))):
        reason = "with fixed weights there is only one network; use weights=random" if nets > 1 else "at least 1"
        raise UserError(f"nets={nets}: {reason}")
    try:
        checked_seed(options.seed)
    except ValueError as error:
        raise UserError(f"seed={options.seed}: {error}") from error
    rounded = config.precision == "tf32" and device.type != "cuda"  # A CPU tests in float32 what a GPU made in tf32.
    if not same:  # The other network has its own width and depth, and the initialiser of the artifact's network.
        config = config.changed({"network": {"name": options.network, "init": config.network.init}})
    config = config.changed({"recipe": artifact.recipe if options.recipe is None else options.recipe})
    update = {
        "weights": weights,
        "bank": options.bank or config.bank,
        "epochs": config.epochs if options.epochs is None else options.epochs,
        "test_nets": nets or config.test_nets,
        "seed": options.seed,
        "precision": "float32" if rounded else config.precision,
    }
    return config.model_copy(update=update)


def _initial_weights(
    artifact: Artifact, config: DistillConfig, network: Network, options: EvalOptions
) -> InitialWeights:
    """Return where networks of a config start from: fresh draws, a bank, or the one network of the artifact."""
    if config.weights == "random" or (config.weights == "random_pretrained" and config.published):
        return RandomWeights(network)
    if config.weights == "random_pretrained":
        return _networks_of_bank(artifact, config, network, options)
    if artifact.weights is None or {k: tuple(w.shape) for k, w in artifact.weights.items()} != network.shapes:
        raise UserError(
            f"weights=fixed: the artifact has no initial weights of a {config.network.name}; use weights=random"
        )
    return FixedWeights(torch.cat([w.flatten() for w in artifact.weights.values()]))


def _networks_of_bank(artifact: Artifact, config: DistillConfig, network: Network, options: EvalOptions) -> BankWeights:
    """Return pretrained networks that did not make the artifact: the test part of its bank, or all of another."""
    if config.bank is None:
        raise UserError("weights=random_pretrained: needs bank=FOLDER (--bank), the artifact was made without one")
    bank = load_bank(config.bank)
    check_bank(bank.manifest, config, artifact.class_names, artifact.image_shape, network)
    known = bank.fingerprint == artifact.provenance.get("bank")
    if not known and options.bank is None:
        raise UserError(
            f"bank={config.bank}: is not the bank it was when the set was made; to test on all of it, use --bank"
        )
    count = artifact.config.test_nets if known else len(bank.networks)
    if (options.nets or 0) > count:
        raise UserError(
            f"nets={options.nets}: bank={config.bank} has only {count} networks that the set was not made with"
        )
    return BankWeights(bank.networks, artifact.config.val_nets if known else 0, count)


def _real_data(
    artifact: Artifact, data: Dataset | None, data_dir: str | Path | None, allow_other_data: bool
) -> Dataset:
    """Return the real data that an artifact was made from: those given, or read from where its config says.

    Raises:
        UserError: they are not there, do not fit the artifact or, where only those will do, are other ones.
    """
    data = data or load_dataset(artifact.config, data_dir, artifact.whitening)
    if data.image_shape != artifact.image_shape or data.class_names != artifact.class_names:
        raise UserError(
            f"dataset={data.name} has {data.num_classes} classes of images {data.image_shape}, the artifact "
            f"{len(artifact.class_names)} classes of {artifact.image_shape}"
        )
    if artifact.whitening is not None and not artifact.whitening.is_close(data.whitening):
        raise UserError(
            f"data.zca={artifact.config.data.zca}: the given data are not whitened as the artifact's set was; load "
            "them with load_dataset(artifact.config, whitening=artifact.whitening)"
        )
    if artifact.whitening is None and data.whitening is not None:
        raise UserError("data.zca: the given data are whitened, the artifact's set was not")
    check_same(data, artifact.provenance, "the distilled set", allow_other_data)
    return data
