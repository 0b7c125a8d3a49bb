"""What a distilled set has to beat: sets of the same size that nobody learned (Wang et al. 2018, section 4)."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.data import Dataset, Split, is_same
from raydistill.evaluation.accuracy import Evaluation, confusions, evaluate_planned, train_networks
from raydistill.evaluation.baseline_images import average_images, classes_for, kmeans_images
from raydistill.evaluation.knn import ByNeighbours, by_neighbours, neighbour_accuracies
from raydistill.evaluation.problem import evaluation_plan, real_data_for
from raydistill.method import DistilledSet
from raydistill.method.initial_weights import InitialWeights
from raydistill.method.objective import CLASSIFY, Objective, objective_of
from raydistill.method.rng import named_generator
from raydistill.networks import Network
from raydistill.store.artifact import Artifact
from raydistill.system.device import pick_device

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # the fixed step sizes to choose from
DRAWS = 8  # sets of random images, and networks
POOL = 5  # optimized real: the best of so many times as many draws, the top 20% of the paper
POOL_NETWORKS = 4  # that judge each draw of the pool
FEW = 2000  # real images to choose with


@dataclass(frozen=True)
class ByGradient:
    """Test accuracy after gradient steps of one fixed size (None: learned ones), over `nets` trained networks."""

    accuracy: float
    accuracy_std: float
    nets: int
    rate: float | None

    @classmethod
    def of(cls, result: Evaluation, rate: float | None) -> "ByGradient":
        """The accuracy of an evaluation."""
        return cls(result.accuracy, result.accuracy_std, result.nets, rate)


@dataclass(frozen=True)
class Judged:
    """How good a kind of set is: to train on, and as the neighbours of real images."""

    gradient: ByGradient
    knn: ByNeighbours


def random_real(
    network: Network,
    start: InitialWeights,
    like: DistilledSet,
    data: Dataset,
    seed: int = 0,
    objective: Objective = CLASSIFY,
) -> Evaluation:
    """Test accuracy of random real training images, as many as in `like`, trained on for as many gradient steps.

    All steps have one fixed size, the one of `RATES` with the best validation accuracy. The mean is over `DRAWS`
    draws of images, each with a network of its own.
    """
    baselines = Baselines(network, start, like, data, seed, objective)
    return baselines.by_gradient(baselines.random_sets(DRAWS, "random real"))[0]


def evaluate_with_baseline(
    artifact: Artifact,
    *,
    network: str | None = None,
    weights: str | None = None,
    bank: str | None = None,
    epochs: int | None = None,
    nets: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
) -> tuple[Evaluation, Evaluation, bool]:
    """`evaluate`, the same network with random real images, and whether the data are those that the set was made from.

    Arguments and errors are those of `evaluate`.
    """
    plan = config, model, start = evaluation_plan(artifact, network, weights, nets, bank)
    where = pick_device(device)
    data = real_data_for(artifact, None, data_dir, allow_other_data).to(where)
    result = evaluate_planned(artifact, plan, data, epochs, nets, seed)
    like = artifact.distilled.to(where).with_epochs(epochs or artifact.config.epochs)
    baseline = random_real(model, start, like, data, seed, objective_of(config, data.class_names))
    return result, baseline, is_same(data, artifact.provenance)


class Baselines:
    """The four baselines, of the size of a distilled set and trained on for as many gradient steps.

    Everything is chosen on training and validation data; the test data are for the accuracies that are returned.

    Args:
        network: the network.
        start: its initial weights; where they are fixed, all sets are trained on by the one network there is.
        like: a set of the size and number of gradient steps wanted, on the data's device.
        data: the real data.
        seed: of every draw.
        objective: what the trained network should do.
        draws: sets of random images, and networks.
    """

    def __init__(
        self,
        network: Network,
        start: InitialWeights,
        like: DistilledSet,
        data: Dataset,
        seed: int = 0,
        objective: Objective = CLASSIFY,
        draws: int = DRAWS,
    ) -> None:
        self.network, self.start, self.data, self.objective = network, start, data, objective
        self.draws, self.seed, self.device = draws, seed, like.images.device
        self.raw_rates = like.raw_rates
        self.classes = classes_for(like.labels, self._generator("baseline classes"))
        self.wanted = objective.wanted(self.classes)
        self.labels = F.one_hot(self.wanted, like.labels.shape[-1]).to(like.labels)
        self.networks = start.held_out(draws, "baseline", seed).to(self.device)
        self.train = self._some(data.train, "training images")
        self.val = self._some(data.val, "validation images")

    def all(self) -> dict[str, Judged]:
        """The four by name."""
        random = self.judged(self.random_sets(self.draws, "random real"))
        return {
            "random_real": random,
            "optimized_real": self.optimized(random),
            "k_means": self.judged(kmeans_images(self.data.train, self.classes, self.seed)[None]),
            "average": self.judged(average_images(self.data.train, self.classes)[None]),
        }

    def optimized(self, random: Judged) -> Judged:
        """The best of many random draws; those to train on and those to be neighbours are chosen apart.

        They are compared at the step size and number of neighbours that were best for `random` draws.
        """
        assert random.gradient.rate is not None
        pool = self.random_sets(POOL * self.draws, "optimized real")
        to_train_on = self.best_of(pool, self.worth_by_gradient(pool, random.gradient.rate))
        to_be_near = self.best_of(pool, self.worth_by_neighbours(pool, random.knn.k))
        return Judged(ByGradient.of(*self.by_gradient(to_train_on)), self.by_neighbours(to_be_near))

    def judged(self, images: Tensor) -> Judged:
        """D sets [D, S, B, C, H, W], judged both ways."""
        return Judged(ByGradient.of(*self.by_gradient(images)), self.by_neighbours(images))

    def random_sets(self, count: int, name: str) -> Tensor:
        """`count` sets of random training images [count, S, B, C, H, W], drawn by the seed and a name."""
        generator = self._generator(name)
        return torch.stack([self.data.train.of_classes(self.classes, generator) for _ in range(count)])

    def by_gradient(self, images: Tensor) -> tuple[Evaluation, float]:
        """Test accuracy after training on D sets [D, S, B, C, H, W], and the step size that validation chose."""
        trained = {rate: self._trained(images, rate) for rate in RATES}
        rate = max(RATES, key=lambda rate: self._tested(trained[rate], self.val).accuracy)
        return self._tested(trained[rate], self.data.test), rate

    def by_neighbours(self, images: Tensor) -> ByNeighbours:
        """Test accuracy with D sets [D, S, B, C, H, W] as neighbours."""
        return by_neighbours(images, self.wanted, self.val, self.data.test, self.objective)

    def worth_by_gradient(self, pool: Tensor, rate: float) -> Tensor:
        """Accuracy [P] on training images after training on each of P sets with a step size.

        It is the mean over a few networks, others than those of the test, so that no set wins by a lucky network.
        """
        weights = self.start.sample(POOL_NETWORKS, named_generator(self.seed, "pool weights")).to(self.device)
        trained = [train_networks(self.network, self._set(images, rate), weights) for images in pool]
        confusion, _ = confusions(self.network, torch.cat(trained), self.train, self.objective)
        return self.objective.measures(confusion)["accuracy"].view(len(pool), -1).mean(1)

    def worth_by_neighbours(self, pool: Tensor, k: int) -> Tensor:
        """Accuracy [P] on training images by the k nearest images of each of P sets."""
        return neighbour_accuracies(pool, self.wanted, self.train, [k], self.objective)[0]

    def best_of(self, pool: Tensor, worth: Tensor) -> Tensor:
        """The `draws` sets of a pool [P, S, B, C, H, W] that are worth [P] most."""
        return pool[worth.topk(self.draws).indices]

    def _trained(self, images: Tensor, rate: float) -> Tensor:
        """Weights [N, W]: all networks trained on the one set, or as many as there are sets, each on one of them."""
        sets = [self._set(i, rate) for i in images]
        if len(sets) == 1:
            return train_networks(self.network, sets[0], self.networks)
        starts = self.networks[torch.arange(len(sets)) % len(self.networks)]
        return torch.cat([train_networks(self.network, s, w[None]) for s, w in zip(sets, starts, strict=True)])

    def _set(self, images: Tensor, rate: float) -> DistilledSet:
        return DistilledSet.from_rates(images, self.labels, torch.full_like(self.raw_rates, rate))

    def _tested(self, networks: Tensor, split: Split) -> Evaluation:
        confusion, losses = confusions(self.network, networks, split, self.objective)
        return Evaluation.of(self.objective.measures(confusion), losses)

    def _some(self, split: Split, name: str) -> Split:
        """The split, or `FEW` random examples where it is larger (their order may be by class)."""
        if len(split) <= FEW:
            return split
        index = torch.randperm(len(split), generator=self._generator(name), device=self.device)[:FEW]
        return split.at(index)

    def _generator(self, name: str) -> torch.Generator:
        return named_generator(self.seed, name, self.device)
