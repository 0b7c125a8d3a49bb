"""What testing an artifact takes: the network, where its initial weights come from, and the real data."""

from pathlib import Path

import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset, check_same, load_dataset
from raydistill.method.initial_weights import BankWeights, FixedWeights, InitialWeights, RandomWeights
from raydistill.networks import Network, build_network
from raydistill.store.artifact import Artifact
from raydistill.store.bank import check_bank, load_bank
from raydistill.system.errors import UserError


def real_data_for(
    artifact: Artifact, data: Dataset | None, data_dir: str | Path | None, allow_other_data: bool = False
) -> Dataset:
    """The real data an artifact was made from: `data`, or read from where its config says.

    Raises:
        UserError: they are not there, do not fit the artifact or, where only those will do, are other ones.
    """
    data = data or load_dataset(artifact.config, data_dir)
    if data.image_shape != artifact.image_shape or data.class_names != artifact.class_names:
        raise UserError(
            f"dataset={data.name} has {data.num_classes} classes of images {data.image_shape}, the artifact "
            f"{len(artifact.class_names)} classes of {artifact.image_shape}"
        )
    check_same(data, artifact.provenance, "the distilled set", allow_other_data)
    return data


def evaluation_plan(
    artifact: Artifact,
    network: str | None = None,
    weights: str | None = None,
    nets: int | None = None,
    bank: str | None = None,
) -> tuple[DistillConfig, Network, InitialWeights]:
    """The artifact's config with the network asked for, that network, and where its initial weights come from.

    Raises:
        UserError: they do not go together, or not with the artifact.
    """
    config = artifact.config
    same = network in (None, config.network.name)
    weights = weights or ("random_pretrained" if bank else config.weights if same else "random")
    if weights not in ("fixed", "random", "fixed_pretrained", "random_pretrained"):
        raise UserError(f"weights={weights}: should be fixed, random or random_pretrained")
    if nets is not None and (nets < 1 or (nets > 1 and weights.startswith("fixed"))):
        reason = "with fixed weights there is only one network; use weights=random" if nets > 1 else "at least 1"
        raise UserError(f"nets={nets}: {reason}")
    if not same:  # with its own width and depth, and the initialiser of the artifact's
        config = config.changed({"network": {"name": network, "init": config.network.init}})
    config = config.model_copy(update={"weights": weights, "bank": bank or config.bank})
    model = build_network(config, artifact.image_shape, len(artifact.class_names))
    if weights == "random" or (weights == "random_pretrained" and config.published):
        return config, model, RandomWeights(model)
    if weights == "random_pretrained":
        return config, model, _networks_of_bank(artifact, config, model, nets, bank)
    if artifact.weights is None or {k: tuple(w.shape) for k, w in artifact.weights.items()} != model.shapes:
        raise UserError(
            f"weights=fixed: the artifact has no initial weights of a {config.network.name}; use weights=random"
        )
    return config, model, FixedWeights(torch.cat([w.flatten() for w in artifact.weights.values()]))


def _networks_of_bank(
    artifact: Artifact, config: DistillConfig, model: Network, nets: int | None, path: str | None
) -> BankWeights:
    """Pretrained networks that were not used to make the artifact: the test part of its bank, or all of another."""
    where = path or config.bank
    if where is None:
        raise UserError("weights=random_pretrained: needs bank=FOLDER (--bank), the artifact was made without one")
    bank = load_bank(where)
    check_bank(bank.manifest, config, artifact.class_names, artifact.image_shape, model)
    known = bank.fingerprint == artifact.provenance.get("bank")
    if not known and path is None:
        raise UserError(f"bank={where}: is not the bank it was when the set was made; to test on all of it, use --bank")
    count = config.test_nets if known else len(bank.networks)
    if (nets or 0) > count:
        raise UserError(f"nets={nets}: bank={where} has only {count} networks that the set was not made with")
    return BankWeights(bank.networks, 0, count)
