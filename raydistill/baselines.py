"""What a distilled set has to beat: sets of the same size that nobody learned."""

from pathlib import Path

import torch
from torch import Tensor

from raydistill.artifact import Artifact
from raydistill.data import Dataset
from raydistill.device import pick_device
from raydistill.evaluate import Evaluation, evaluate, evaluation_plan, real_data_for, score, train_networks
from raydistill.method import DistilledSet
from raydistill.method.rng import named_generator
from raydistill.method.weights import InitialWeights
from raydistill.networks import Network

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)  # the fixed step sizes to choose from
DRAWS = 8  # sets of real images


def random_real(
    network: Network, start: InitialWeights, like: DistilledSet, data: Dataset, seed: int = 0
) -> Evaluation:
    """Test accuracy of random real training images, as many as in `like`, trained on for as many gradient steps.

    All steps have one fixed size, the one of `RATES` with the best validation accuracy. The mean is over `DRAWS`
    draws of images, each with a network of its own.
    """
    device = like.images.device
    generator = named_generator(seed, "random real", device)
    weights = start.held_out(DRAWS, "baseline", seed).to(device)
    weights = weights[torch.arange(DRAWS) % len(weights)]
    draws = [data.train.of_classes(like.labels.argmax(-1), generator) for _ in range(DRAWS)]

    def trained(rate: float) -> Tensor:
        rates = torch.full_like(like.raw_rates, rate)
        sets = [DistilledSet.from_rates(images, like.labels, rates) for images in draws]
        return torch.cat([train_networks(network, s, w[None]) for s, w in zip(sets, weights, strict=True)])

    candidates = [trained(rate) for rate in RATES]
    few = data.val.first(2000)
    best = max(candidates, key=lambda networks: Evaluation.of(*score(network, networks, few)).accuracy)
    return Evaluation.of(*score(network, best, data.test))


def evaluate_with_baseline(
    artifact: Artifact,
    *,
    network: str | None = None,
    weights: str | None = None,
    nets: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_dir: str | Path | None = None,
) -> tuple[Evaluation, Evaluation]:
    """`evaluate`, and the same network with random real images; arguments and errors are those of `evaluate`."""
    _, model, start = evaluation_plan(artifact, network, weights, nets)
    data = real_data_for(artifact, None, data_dir).to(pick_device(device))
    result = evaluate(artifact, network=network, weights=weights, nets=nets, seed=seed, device=device, data=data)
    return result, random_real(model, start, artifact.distilled.to(pick_device(device)), data, seed)
