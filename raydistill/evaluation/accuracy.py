"""How good a distilled set is: train fresh networks on it and test them on real images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from raydistill.data import Dataset, Split
from raydistill.evaluation.artifact_problem import EvalOptions, problem_of_artifact
from raydistill.evaluation.problem import Problem
from raydistill.kernels.recorded import recorded
from raydistill.method import DistilledSet, train
from raydistill.method.objective import CLASSIFY, Objective
from raydistill.method.unroll import Apply, vmap_over
from raydistill.networks import Network
from raydistill.store.artifact import Artifact, load
from raydistill.system.gpu_memory import is_out_of_gpu_memory

TRAIN_CHUNK = 16  # The number of networks that are trained at once.
TEST_NETWORKS = 16  # The number of networks that are tested at once.
TEST_IMAGES = 500  # The number of images that they are tested on at once.
WORST_LOSS = 1e6  # It replaces infinite and undefined losses, so that one diverged network does not hide the others.
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


def evaluate(
    artifact: Artifact | str | Path,
    *,
    network: str | None = None,
    weights: str | None = None,
    bank: str | None = None,
    epochs: int | None = None,
    nets: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
) -> Evaluation:
    """Test an artifact on networks that were not used to make it, before and after training on it.

    Args:
        artifact: the artifact, or its folder or address.
        network: another network than the one it was distilled for.
        weights: "fixed", "random" or "random_pretrained"; by default as it was distilled, and random for another
            network.
        bank: another bank of pretrained networks than the one it was distilled with; all of its networks are used. Or
            "published".
        epochs: another number of passes over the set; the learned step sizes are used again from the first.
        nets: how many networks to average over; by default one with fixed weights, else the config's `test_nets`.
        seed: the seed of the random weights; no training uses these draws.
        device: auto, cpu, cuda or cuda:N.
        data: the real data, where they are loaded already; else they are read from where the artifact says.
        data_dir: the folder of downloaded data sets.
        allow_other_data: take other data than those that the set was made from.

    Returns:
        The measures after training; those before it are in `more`, with names that end in `_before`.

    Raises:
        UserError: the artifact cannot be read, or the network or the data do not fit it.
    """
    artifact = artifact if isinstance(artifact, Artifact) else load(artifact)
    options = EvalOptions(network, weights, bank, epochs, nets, seed, device)
    return before_and_after(*problem_of_artifact(artifact, options, data, data_dir, allow_other_data))


def evaluate_on(problem: Problem, distilled: DistilledSet, part: Literal["validation", "test"]) -> Evaluation:
    """Train the networks that a problem holds out for a part on a set, and test them on the part's real images."""
    split = problem.data.val if part == "validation" else problem.data.test
    return evaluate_set(problem.network, distilled, problem.held_out(part), split, problem.objective)


def before_and_after(problem: Problem, distilled: DistilledSet) -> Evaluation:
    """Test a set on the test images; `more` holds what the networks could do before, under names in `_before`."""
    start, images = problem.held_out("test"), problem.data.test
    before = evaluate_networks(problem.network, start, images, problem.objective).metrics("", "_before")
    after = evaluate_on(problem, distilled, "test")
    return replace(after, more=after.more | before)


def evaluate_set(
    network: Network, distilled: DistilledSet, weights: Tensor, split: Split, objective: Objective = CLASSIFY
) -> Evaluation:
    """Train the networks that start from weights [N, W] on the set, and test each on the split."""
    return evaluate_networks(network, train_networks(network, distilled, weights), split, objective)


def evaluate_networks(network: Network, weights: Tensor, split: Split, objective: Objective = CLASSIFY) -> Evaluation:
    """Test networks with weights [N, W] on the split."""
    confusion, losses = confusions(network, weights, split, objective)
    return Evaluation.of(objective.measures(confusion), losses)


def train_networks(network: Network, distilled: DistilledSet, weights: Tensor) -> Tensor:
    """Train networks on the set from weights [N, W], and return their weights [N, W] after it."""
    return torch.cat(_in_chunks(lambda chunk: train(network, distilled, chunk), weights, TRAIN_CHUNK))


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
