"""How good a distilled set is: train fresh networks on it and test them on real images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from raydistill.config.recipe_settings import Recipe, ScheduleRecipe
from raydistill.data import Split
from raydistill.evaluation.problem import Problem
from raydistill.kernels.recorded import recorded
from raydistill.method import DistilledSet
from raydistill.method.objective import CLASSIFY, Objective
from raydistill.method.recipe import train_by
from raydistill.method.unroll import Apply, vmap_over
from raydistill.networks import Network
from raydistill.system.gpu_memory import is_out_of_gpu_memory

TRAIN_CHUNK = 16  # The most networks that are trained at once.
CPU_PIXELS = 10_000  # The most pixels of one optimizer step, over all networks, that a CPU computes at once.
TEST_NETWORKS = 16  # The number of networks that are tested at once.
TEST_IMAGES = 500  # The number of images that they are tested on at once.
WORST_LOSS = 1e6  # It replaces infinite and undefined losses, so that one diverged network does not hide the others.
SCHEDULE = ScheduleRecipe()
Result = TypeVar("Result")


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (a fraction) and cross-entropy on real images: mean and deviation over `nets` networks.

    The deviation is that of the sample (0 for one network), in the same unit. `more` holds what else the objective
    measures, by name, with deviations under NAME_std.
    """

    accuracy: float
    accuracy_std: float
    loss: float
    nets: int
    more: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, measures: Tensor | dict[str, Tensor], losses: Tensor) -> "Evaluation":
        """Summarise accuracies [N], or measures [N] by name, and losses [N].

        A network that diverged counts like the others.
        """
        named = {"accuracy": measures} if isinstance(measures, Tensor) else measures
        summary = {}
        for name, values in named.items():
            summary[name] = values.mean().item()
            summary[f"{name}_std"] = values.std().item() if len(values) > 1 else 0.0
        accuracy, std = summary.pop("accuracy"), summary.pop("accuracy_std")
        finite = losses.nan_to_num(nan=WORST_LOSS, posinf=WORST_LOSS).clamp(max=WORST_LOSS)
        return cls(accuracy, std, finite.mean().item(), len(losses), summary)

    def metrics(self, prefix: str, suffix: str = "") -> dict[str, float]:
        """Return all but the loss by name, as `{prefix}accuracy{suffix}` and `{prefix}accuracy_std{suffix}`."""
        values = {"accuracy": self.accuracy, "accuracy_std": self.accuracy_std, **self.more}
        return {f"{prefix}{name}{suffix}": value for name, value in values.items()}


def evaluate_on(
    problem: Problem, distilled: DistilledSet, part: Literal["validation", "test"], recipe: Recipe = SCHEDULE
) -> Evaluation:
    """Train the networks that a problem holds out for a part on a set, and test them on the part's real images."""
    split = problem.data.val if part == "validation" else problem.data.test
    trained = train_networks(problem.network, distilled, problem.held_out(part), recipe, problem.config.seed)
    return evaluate_networks(problem.network, trained, split, problem.objective)


def before_and_after(problem: Problem, distilled: DistilledSet, recipe: Recipe) -> Evaluation:
    """Test a set on the test images; `more` holds what the networks could do before, under names in `_before`."""
    start, images = problem.held_out("test"), problem.data.test
    before = evaluate_networks(problem.network, start, images, problem.objective).metrics("", "_before")
    after = evaluate_on(problem, distilled, "test", recipe)
    return replace(after, more=after.more | before)


def evaluate_set(
    network: Network, distilled: DistilledSet, weights: Tensor, split: Split, objective: Objective = CLASSIFY
) -> Evaluation:
    """Train the networks that start from weights [N, W] on the set by its schedule, and test each on the split."""
    return evaluate_networks(network, train_networks(network, distilled, weights), split, objective)


def evaluate_networks(network: Network, weights: Tensor, split: Split, objective: Objective = CLASSIFY) -> Evaluation:
    """Test networks with weights [N, W] on the split."""
    confusion, losses = confusions(network, weights, split, objective)
    return Evaluation.of(objective.measures(confusion), losses)


def train_networks(
    network: Network, distilled: DistilledSet, weights: Tensor, recipe: Recipe = SCHEDULE, seed: int = 0
) -> Tensor:
    """Train networks on one set from weights [N, W], and return their weights [N, W] after it."""
    stacked = DistilledSet.stack([distilled])

    def trained(chunk: Tensor) -> Tensor:
        return train_by(recipe, network, stacked, chunk[None], seed)[0]

    return torch.cat(_in_chunks(trained, weights, _at_once(recipe, stacked)))


def train_one_each(
    network: Network, sets: DistilledSet, weights: Tensor, recipe: Recipe = SCHEDULE, seed: int = 0
) -> Tensor:
    """Train one network on each of D stacked sets, from weights [D, W]; return their weights [D, W] after it."""

    def trained(numbers: Tensor) -> Tensor:
        some = DistilledSet(sets.images[numbers], sets.labels[numbers], sets.raw_rates[numbers])
        return train_by(recipe, network, some, weights[numbers, None], seed)[:, 0]

    numbers = torch.arange(len(weights), device=weights.device)
    return torch.cat(_in_chunks(trained, numbers, _at_once(recipe, sets)))


def _at_once(recipe: Recipe, sets: DistilledSet) -> int:
    """Return how many networks an optimizer should train at once on stacked sets.

    On a CPU several at once share the overhead of small operations, and share the cache in large ones: a ConvNet takes
    half the time with 8 at once on 10 images of 8 x 8, and twice the time on 100 of 28 x 28.
    """
    if isinstance(recipe, ScheduleRecipe) or sets.images.device.type != "cpu":
        return TRAIN_CHUNK
    *_, channels, height, width = sets.images.shape
    count = sets.images.shape[1] * sets.images.shape[2]
    pixels = min(recipe.batch or count, count) * channels * height * width
    return max(1, min(TRAIN_CHUNK, CPU_PIXELS // pixels))


def score(network: Network, weights: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """Return accuracies [N] and mean cross-entropies [N] of networks with weights [N, W] on real images."""
    confusion, losses = confusions(network, weights, split)
    return CLASSIFY.measures(confusion)["accuracy"], losses


def confusions(
    network: Network, weights: Tensor, split: Split, objective: Objective = CLASSIFY
) -> tuple[Tensor, Tensor]:
    """Count how many images of each class networks with weights [N, W] take for each class, and measure their losses.

    Returns:
        Counts [N, K, K], true class first, and mean cross-entropies [N], with respect to what the objective wants.
    """
    count = network.keep(
        ("confusions", objective), lambda apply: recorded(functools.partial(_confusions, apply, objective))
    )

    def tested(chunk: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            count(chunk, *real)
            for real in zip(split.images.split(TEST_IMAGES), split.labels.split(TEST_IMAGES), strict=True)
        ]
        counts, losses = zip(*parts, strict=True)
        return torch.stack(counts).sum(0), torch.stack(losses).sum(0)

    counts, losses = zip(*_in_chunks(tested, weights, TEST_NETWORKS), strict=True)
    return torch.cat(counts), torch.cat(losses) / len(split)


def _in_chunks(function: Callable[[Tensor], Result], weights: Tensor, size: int) -> list[Result]:
    """Call a function with `size` networks of [N, W] at a time, with half as many where a GPU's memory is too small.

    Returns:
        What the function returned, in the order of the networks.
    """
    results: list[Result] = []
    done = 0
    while done < len(weights):
        try:
            results.append(function(weights[done : done + size]))
            done += size
        except RuntimeError as error:
            if not is_out_of_gpu_memory(error) or size == 1:
                raise
            size = -(-min(size, len(weights) - done) // 2)
    return results


def _confusions(
    network: Apply, objective: Objective, weights: Tensor, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return counts [N, K, K] and sums of cross-entropies [N] of N networks on one batch of images."""
    logits = vmap_over(len(weights), network, (0, None))(weights, images)  # [N, B, K]
    wanted = objective.wanted(labels).expand(len(weights), -1)
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
    classes = logits.shape[2]
    pairs = labels * classes + logits.argmax(2)
    counts = torch.zeros(len(weights), classes**2, dtype=torch.int64, device=labels.device)
    counts = counts.scatter_add(1, pairs, torch.ones_like(pairs))
    return counts.unflatten(1, (classes, classes)), losses.sum(1)
