"""How good a distilled set is: train fresh networks on it and test them on real images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from raydistill.artifact import Artifact, load
from raydistill.config import DistillConfig
from raydistill.data import Dataset, Split, load_dataset
from raydistill.device import pick_device
from raydistill.errors import UserError
from raydistill.method import DistilledSet, train
from raydistill.method.record import recorded
from raydistill.method.rng import named_generator
from raydistill.method.unroll import vmap_over
from raydistill.method.weights import FixedWeights, InitialWeights, RandomWeights
from raydistill.networks import Network, build_network

TRAIN_CHUNK = 16  # networks trained at once
TEST_NETWORKS = 16  # networks tested at once,
TEST_IMAGES = 500  # on as many images
WORST_LOSS = 1e6  # stands for infinite and undefined losses, so that one diverged network does not hide the others


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (a fraction) and cross-entropy on real images after training: mean and deviation over `nets` networks.

    The deviation is that of the sample (0 for one network), in the same unit.
    """

    accuracy: float
    accuracy_std: float
    loss: float
    nets: int

    @classmethod
    def of(cls, accuracies: Tensor, losses: Tensor) -> "Evaluation":
        """The summary of accuracies [N] and losses [N]; a network that diverged counts with what it is worth."""
        std = accuracies.std().item() if len(accuracies) > 1 else 0.0
        finite = losses.nan_to_num(nan=WORST_LOSS, posinf=WORST_LOSS).clamp(max=WORST_LOSS)
        return cls(accuracies.mean().item(), std, finite.mean().item(), len(accuracies))


def evaluate(
    artifact: Artifact | str | Path,
    *,
    network: str | None = None,
    weights: str | None = None,
    nets: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
) -> Evaluation:
    """Test accuracy of an artifact over freshly initialised networks.

    Args:
        artifact: the artifact, or where it lies.
        network: another network than the one it was distilled for.
        weights: "fixed" or "random"; by default as it was distilled, and random for another network.
        nets: how many networks to average over; by default one with fixed weights, else the config's `test_nets`.
        seed: of the random weights; no training ever uses these draws.
        device: auto, cpu, cuda or cuda:N.
        data: the real data, where they are loaded already; else they are read from where the config says.
        data_dir: folder of downloaded data sets.

    Raises:
        UserError: the artifact cannot be read, or the network does not fit it.
    """
    if not isinstance(artifact, Artifact):
        artifact = load(artifact)
    where = pick_device(device)
    config, model, start = evaluation_plan(artifact, network, weights, nets)
    data = real_data_for(artifact, data, data_dir).to(where)
    draws = start.sample(nets or config.test_nets, named_generator(seed, "test weights")).to(where)
    return evaluate_set(model, artifact.distilled.to(where), draws, data.test)


def real_data_for(artifact: Artifact, data: Dataset | None, data_dir: str | Path | None) -> Dataset:
    """The real data an artifact was made from: `data`, or read from where its config says.

    Raises:
        UserError: they are not there, or do not fit the artifact.
    """
    data = data or load_dataset(artifact.config, data_dir)
    if data.image_shape != artifact.image_shape or data.class_names != artifact.class_names:
        raise UserError(
            f"dataset={data.name} has {data.num_classes} classes of images {data.image_shape}, the artifact "
            f"{len(artifact.class_names)} classes of {artifact.image_shape}"
        )
    return data


def evaluation_plan(
    artifact: Artifact, network: str | None = None, weights: str | None = None, nets: int | None = None
) -> tuple[DistillConfig, Network, InitialWeights]:
    """The artifact's config with the network asked for, that network, and where its initial weights come from.

    Raises:
        UserError: they do not go together, or not with the artifact.
    """
    same = network in (None, artifact.config.network)
    weights = weights or (artifact.config.weights if same else "random")
    if weights not in ("fixed", "random"):
        raise UserError(f"weights={weights}: should be fixed or random")
    if nets is not None and (nets < 1 or (nets > 1 and weights == "fixed")):
        reason = "with fixed weights there is only one network; use weights=random" if nets > 1 else "at least 1"
        raise UserError(f"nets={nets}: {reason}")
    update = {"network": network or artifact.config.network, "weights": weights}
    config = artifact.config.model_copy(update=update)
    model = build_network(config, artifact.image_shape, len(artifact.class_names))
    if weights == "random":
        return config, model, RandomWeights(model)
    if artifact.weights is None or {k: tuple(w.shape) for k, w in artifact.weights.items()} != model.shapes:
        raise UserError(f"weights=fixed: the artifact has no initial weights of a {config.network}; use weights=random")
    return config, model, FixedWeights(torch.cat([w.flatten() for w in artifact.weights.values()]))


def evaluate_set(network: Network, distilled: DistilledSet, weights: Tensor, split: Split) -> Evaluation:
    """Trains the networks that start from weights [N, W] on the set and tests each on the split."""
    accuracies, losses = score(network, train_networks(network, distilled, weights), split)
    return Evaluation.of(accuracies, losses)


def train_networks(network: Network, distilled: DistilledSet, weights: Tensor) -> Tensor:
    """The weights [N, W] after training on the set from weights [N, W]."""
    return torch.cat([train(network, distilled, chunk) for chunk in weights.split(TRAIN_CHUNK)])


def score(network: Network, weights: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """Accuracies [N] and mean cross-entropies [N] of networks with weights [N, W] on real images."""
    correct, losses = [], []
    for chunk in weights.split(TEST_NETWORKS):
        parts = [
            _recorded_score(network)(chunk, *real)
            for real in zip(split.images.split(TEST_IMAGES), split.labels.split(TEST_IMAGES), strict=True)
        ]
        correct.append(torch.stack([part[0] for part in parts]).sum(0))
        losses.append(torch.stack([part[1] for part in parts]).sum(0))
    return torch.cat(correct) / len(split), torch.cat(losses) / len(split)


@functools.lru_cache(maxsize=8)
def _recorded_score(network: Network) -> Callable[..., tuple[Tensor, Tensor]]:
    return recorded(functools.partial(_score, network))


def _score(network: Network, weights: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How many images each of N networks gets right [N], and the sum of its cross-entropies [N]."""
    logits = vmap_over(len(weights), network, (0, None))(weights, images)
    several = labels.expand(len(weights), -1)
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), several, reduction="none")
    return (logits.argmax(2) == several).sum(1), losses.sum(1)
