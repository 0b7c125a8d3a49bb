"""Baselines: sets of the size of a distilled one that are not learned (Wang et al. 2018, section 4)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.config.recipe_settings import OptimizerRecipe, Recipe
from raydistill.data import Split
from raydistill.evaluation.accuracy import Evaluation, confusions, train_networks, train_one_each
from raydistill.evaluation.baseline_images import average_images, classes_for, kmeans_images
from raydistill.evaluation.knn import ByNeighbours, by_neighbours, neighbour_accuracies
from raydistill.evaluation.problem import Problem
from raydistill.evaluation.recipes import Chosen, best_recipe
from raydistill.method import DistilledSet
from raydistill.method.rng import named_generator

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # The fixed step sizes to choose from.
DRAWS = 8  # The number of sets of random images, and of networks.
POOL = 5  # Optimized real images are the best of so many times as many draws: the top 20% of the paper.
POOL_NETWORKS = 4  # The number of networks that are trained on each draw of that pool.
FEW = 2000  # The number of real images on which step sizes, neighbours and draws are chosen.


@dataclass(frozen=True)
class ByGradient:
    """Test accuracy after gradient steps of one fixed size (None for learned sizes), over `nets` trained networks."""

    accuracy: float
    accuracy_std: float
    nets: int
    rate: float | None

    @classmethod
    def of(cls, result: Evaluation, rate: float | None) -> "ByGradient":
        """Take the accuracy of an evaluation."""
        return cls(result.accuracy, result.accuracy_std, result.nets, rate)


@dataclass(frozen=True)
class Judged:
    """How good a kind of set is: for training on it, and for nearest neighbours."""

    gradient: ByGradient
    knn: ByNeighbours


def random_real(problem: Problem, like: DistilledSet, recipe: Recipe) -> tuple[Evaluation, Evaluation, Chosen]:
    """Test random real training images, as many as in a set that is trained on by a recipe.

    Both means are over the same `DRAWS` draws of images, each with a network of its own.

    Returns:
        The result of as many gradient steps, by the recipe, or for a learned schedule by steps of one fixed size, the
        one of `RATES` with the best validation accuracy; the result of the recipe with the best validation accuracy;
        and that recipe.
    """
    baselines = Baselines(problem, like, recipe)
    images = baselines.random_sets(DRAWS, "random real")
    same, chosen = baselines.by_gradient(images)[0], baselines.best_recipe(images)
    best = same if chosen.recipe == recipe else baselines.by_recipe(images, chosen.recipe)
    return same, best, chosen


class Baselines:
    """The four baselines, as large as a distilled set and trained on for as many gradient steps.

    Everything is chosen on training and validation data; the test data give the accuracies that are returned.

    Args:
        problem: what networks are trained and tested on; its settings' seed is that of every draw. Where the initial
            weights are fixed, all sets are trained on by the one network there is.
        like: a set of the size and number of gradient steps wanted, on the problem's device.
        recipe: how networks are trained on it, and on the baselines. In place of a learned schedule they get as many
            gradient steps of one fixed size.
        draws: the number of sets of random images, and of networks.
    """

    def __init__(self, problem: Problem, like: DistilledSet, recipe: Recipe, draws: int = DRAWS) -> None:
        self.problem, self.recipe, self.draws = problem, recipe, draws
        self.rates = (recipe.lr,) if isinstance(recipe, OptimizerRecipe) else RATES
        self.network, self.data, self.objective = problem.network, problem.data, problem.objective
        self.start, self.seed = problem.initial_weights[0], problem.config.seed
        self.raw_rates = like.raw_rates
        self.classes = classes_for(like.labels, self._generator("baseline classes"))
        self.wanted = self.objective.wanted(self.classes)
        self.labels = F.one_hot(self.wanted, like.labels.shape[-1]).to(like.labels)
        self.networks = self.start.held_out(draws, "baseline", self.seed).to(problem.device)
        self.train = self._some(self.data.train, "training images")
        self.val = self._some(self.data.val, "validation images")

    def all(self) -> dict[str, Judged]:
        """Test all four, and return them by name."""
        random = self.judged(self.random_sets(self.draws, "random real"))
        return {
            "random_real": random,
            "optimized_real": self.optimized(random),
            "k_means": self.judged(kmeans_images(self.data.train, self.classes, self.seed)[None]),
            "average": self.judged(average_images(self.data.train, self.classes)[None]),
        }

    def optimized(self, random: Judged) -> Judged:
        """Test the best of many random draws; those for training and those for neighbours are chosen separately.

        They are compared with the step size and number of neighbours that were best for `random` draws.
        """
        assert random.gradient.rate is not None
        pool = self.random_sets(POOL * self.draws, "optimized real")
        to_train_on = self.best_of(pool, self.worth_by_gradient(pool, random.gradient.rate))
        to_be_near = self.best_of(pool, self.worth_by_neighbours(pool, random.knn.k))
        return Judged(ByGradient.of(*self.by_gradient(to_train_on)), self.by_neighbours(to_be_near))

    def judged(self, images: Tensor) -> Judged:
        """Test D sets [D, S, B, C, H, W] in both ways."""
        return Judged(ByGradient.of(*self.by_gradient(images)), self.by_neighbours(images))

    def random_sets(self, count: int, name: str) -> Tensor:
        """Draw `count` sets of random training images [count, S, B, C, H, W], by the seed and a name."""
        generator = self._generator(name)
        return torch.stack([self.data.train.of_classes(self.classes, generator) for _ in range(count)])

    def by_gradient(self, images: Tensor) -> tuple[Evaluation, float]:
        """Train on D sets [D, S, B, C, H, W]; return the test accuracy and the step size that validation chose."""
        trained = {rate: self._trained(images, rate) for rate in self.rates}
        rate = max(self.rates, key=lambda rate: self._tested(trained[rate], self.val).accuracy)
        return self._tested(trained[rate], self.data.test), rate

    def best_recipe(self, images: Tensor) -> Chosen:
        """Return the recipe that validation finds on the first few of D sets [D, S, B, C, H, W]."""
        few = images[: self.problem.config.choice.nets]

        def worth(recipe: Recipe) -> float:
            return self._tested(self._one_each(few, recipe), self.data.val).accuracy

        of_the_set = (self.recipe,) if isinstance(self.recipe, OptimizerRecipe) else ()
        return best_recipe(worth, self.problem, self._sets(images)[0], of_the_set)

    def by_recipe(self, images: Tensor, recipe: Recipe) -> Evaluation:
        """Train on D sets [D, S, B, C, H, W] by a recipe; return the test accuracy."""
        return self._tested(self._one_each(images, recipe), self.data.test)

    def by_neighbours(self, images: Tensor) -> ByNeighbours:
        """Test D sets [D, S, B, C, H, W] as neighbours of real images."""
        return by_neighbours(images, self.wanted, self.val, self.data.test, self.objective)

    def worth_by_gradient(self, pool: Tensor, rate: float) -> Tensor:
        """Return the accuracy [P] on training images after training on each of P sets with a step size.

        It is the mean over a few networks, others than those of the test, so that no set wins by a lucky network.
        """
        weights = self.start.sample(POOL_NETWORKS, named_generator(self.seed, "pool weights")).to(self.problem.device)
        sets = self._sets(pool, rate)
        trained = [train_networks(self.network, each, weights, self.recipe, self.seed) for each in sets]
        confusion, _ = confusions(self.network, torch.cat(trained), self.train, self.objective)
        return self.objective.measures(confusion)["accuracy"].view(len(pool), -1).mean(1)

    def worth_by_neighbours(self, pool: Tensor, k: int) -> Tensor:
        """Return the accuracy [P] on training images by the k nearest images of each of P sets."""
        return neighbour_accuracies(pool, self.wanted, self.train, [k], self.objective)[0]

    def best_of(self, pool: Tensor, worth: Tensor) -> Tensor:
        """Return the `draws` sets of a pool [P, S, B, C, H, W] whose worth [P] is highest."""
        return pool[worth.topk(self.draws).indices]

    def _trained(self, images: Tensor, rate: float) -> Tensor:
        """Train all networks on the one set, or one network on each of several; return their weights [N, W].

        The rate is the size of the gradient steps where the recipe is a schedule.
        """
        if len(images) > 1:
            return self._one_each(images, self.recipe, rate)
        [alone] = self._sets(images, rate)
        return train_networks(self.network, alone, self.networks, self.recipe, self.seed)

    def _one_each(self, images: Tensor, recipe: Recipe, rate: float = RATES[0]) -> Tensor:
        """Train one network on each set, by a recipe or, where that is a schedule, with steps of this size."""
        starts = self.networks[torch.arange(len(images)) % len(self.networks)]
        return train_one_each(self.network, DistilledSet.stack(self._sets(images, rate)), starts, recipe, self.seed)

    def _sets(self, images: Tensor, rate: float = RATES[0]) -> list[DistilledSet]:
        """Return sets of images [D, S, B, C, H, W] with a schedule of steps of one size."""
        rates = torch.full_like(self.raw_rates, rate)
        return [DistilledSet.from_rates(each, self.labels, rates) for each in images]

    def _tested(self, networks: Tensor, split: Split) -> Evaluation:
        confusion, losses = confusions(self.network, networks, split, self.objective)
        return Evaluation.of(self.objective.measures(confusion), losses)

    def _some(self, split: Split, name: str) -> Split:
        """Return the split, or `FEW` random examples of a larger one, the order of which may be by class."""
        if len(split) <= FEW:
            return split
        index = torch.randperm(len(split), generator=self._generator(name), device=self.problem.device)[:FEW]
        return split.at(index)

    def _generator(self, name: str) -> torch.Generator:
        return named_generator(self.seed, name, self.problem.device)
