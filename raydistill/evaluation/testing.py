"""The test of a set from start to end: the choice of its recipe, fresh networks, random real images beside it."""

import time
from dataclasses import dataclass
from pathlib import Path

from raydistill.config.recipe_settings import AnyRecipe, Recipe
from raydistill.data import Dataset, is_same
from raydistill.evaluation.accuracy import Evaluation, before_and_after
from raydistill.evaluation.artifact_problem import EvalOptions, problem_of_artifact
from raydistill.evaluation.baselines import random_real
from raydistill.evaluation.problem import Problem
from raydistill.evaluation.recipes import chosen_recipe
from raydistill.method import DistilledSet
from raydistill.method.recipe import grad_steps
from raydistill.store.artifact import Artifact, load


@dataclass(frozen=True)
class Tested:
    """What a set's test found."""

    metrics: dict[str, float | int]
    """test_accuracy, nets, grad_steps, baseline_same_steps, baseline_best_recipe and so on, as README lists them."""
    recipe: Recipe
    """How networks were trained on the set."""
    baseline_recipe: Recipe
    """The recipe that validation found for random real images."""


def final_test(problem: Problem, distilled: DistilledSet) -> Tested:
    """Choose a set's recipe where it is to be chosen, test it with fresh networks, and both baselines beside it."""
    chosen = chosen_recipe(problem, distilled)
    result = before_and_after(problem, distilled, chosen.recipe)
    begin = time.perf_counter()
    same, best, of_best = random_real(problem, distilled, chosen.recipe)
    metrics: dict[str, float | int] = result.metrics("test_") | {
        "nets": result.nets,
        "grad_steps": grad_steps(chosen.recipe, distilled),
        "recipe_candidates": chosen.candidates,
        "recipe_seconds": chosen.seconds,
        "baseline_same_steps": same.accuracy,
        "baseline_same_steps_std": same.accuracy_std,
        "baseline_best_recipe": best.accuracy,
        "baseline_best_recipe_std": best.accuracy_std,
        "baseline_seconds": time.perf_counter() - begin,
    }
    return Tested(metrics, chosen.recipe, of_best.recipe)


def final_test_of_artifact(
    artifact: Artifact, options: EvalOptions, data_dir: str | Path | None = None, allow_other_data: bool = False
) -> tuple[Tested, Problem, bool]:
    """Test an artifact as `evaluate` does, and random real images on the same networks.

    Returns:
        What the test found, the problem that it was tested on, and whether the data are those it was made from.
    """
    problem, distilled = problem_of_artifact(artifact, options, None, data_dir, allow_other_data)
    return final_test(problem, distilled), problem, is_same(problem.data, artifact.provenance)


def evaluate(
    artifact: Artifact | str | Path,
    *,
    network: str | None = None,
    weights: str | None = None,
    bank: str | None = None,
    epochs: int | None = None,
    recipe: AnyRecipe | str | None = None,
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
        epochs: another number of passes over the set, where it is trained on by its learned schedule; the step sizes
            are used again from the first.
        recipe: another recipe than the artifact's: the settings of one, or a name, as "schedule", "adam" or "auto",
            with which validation chooses.
        nets: how many networks to average over; by default one with fixed weights, else the config's `test_nets`.
        seed: the seed of the random weights, which no training uses, and of the recipe's batches.
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
    options = EvalOptions(network, weights, bank, epochs, recipe, nets, seed, device)
    problem, distilled = problem_of_artifact(artifact, options, data, data_dir, allow_other_data)
    return before_and_after(problem, distilled, chosen_recipe(problem, distilled).recipe)
