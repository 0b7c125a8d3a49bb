"""The choice of a recipe by validation, among a few."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raydistill.config.augment_settings import Transforms
from raydistill.config.recipe_settings import AdamRecipe, AutoRecipe, Recipe, ScheduleRecipe
from raydistill.data.augment import LEAST_SIDE
from raydistill.evaluation.accuracy import evaluate_networks, train_networks
from raydistill.evaluation.problem import Problem
from raydistill.method import DistilledSet
from raydistill.method.recipe import check_recipe

BATCH = 256  # The most images in a gradient step of a candidate.
SHORT_STEPS = 200  # Gradient steps in validations of a run whose set has no schedule.


@dataclass(frozen=True)
class Chosen:
    """A recipe, and what its choice took: how many candidates, and seconds."""

    recipe: Recipe
    candidates: int = 1
    seconds: float = 0.0


def recipe_so_far(problem: Problem, distilled: DistilledSet) -> Recipe:
    """Return the recipe before a choice: the one that the settings name, else the schedule, else a short one with Adam.

    Raises:
        UserError: the settings name the schedule, and the set has none.
    """
    recipe = problem.config.recipe
    if isinstance(recipe, AutoRecipe):
        if distilled.raw_rates.numel():
            return ScheduleRecipe()
        steps = min(SHORT_STEPS, problem.config.choice.steps or SHORT_STEPS)
        return AdamRecipe(steps=steps, batch=_batch(distilled))
    check_recipe(recipe, distilled)
    return recipe


def validation_recipe(problem: Problem, distilled: DistilledSet) -> Recipe:
    """Return the recipe of a run's validations, which the first of them chooses if settings and set leave it open.

    It is chosen like that of the final test, but has at most `SHORT_STEPS` steps.
    """
    before = recipe_so_far(problem, distilled)
    if not isinstance(problem.config.recipe, AutoRecipe) or isinstance(before, ScheduleRecipe):
        return before
    return chosen_recipe(problem, distilled, before).recipe


def chosen_recipe(problem: Problem, distilled: DistilledSet, first: Recipe | None = None) -> Chosen:
    """Return the recipe that the settings name; with `auto` the candidate with the highest validation accuracy.

    Every candidate trains the same `choice.nets` networks, those of validations. The `first` one decides how many
    steps all take, by default those of `choice`.
    """
    if not isinstance(problem.config.recipe, AutoRecipe):
        return Chosen(recipe_so_far(problem, distilled))
    seed, nets = problem.config.seed, problem.config.choice.nets
    start = problem.initial_weights[0]
    weights = start.held_out(nets, "validation", seed)
    if not len(weights):  # Of a bank that the set was not made with all networks are for tests.
        weights = start.held_out(nets, "test", seed)
    weights = weights.to(problem.device)

    def worth(recipe: Recipe) -> float:
        trained = train_networks(problem.network, distilled, weights, recipe, seed)
        return evaluate_networks(problem.network, trained, problem.data.val, problem.objective).accuracy

    others = (ScheduleRecipe(),) if distilled.raw_rates.numel() else ()
    return best_recipe(worth, problem, distilled, others, first)


def best_recipe(
    worth: Callable[[Recipe], float],
    problem: Problem,
    like: DistilledSet,
    others: Sequence[Recipe] = (),
    first: Recipe | None = None,
) -> Chosen:
    """Return the recipe that is worth most; of equals the last of `others`, else the first.

    One setting after the other is varied, from the best recipe so far.

    Args:
        worth: trains networks by a recipe and returns their accuracy on validation images.
        problem: whose settings have the budget.
        like: a set as large as the one that is trained on.
        others: candidates beside those, as the learned schedule where there is one.
        first: the recipe to begin with; by default Adam with as many steps as the budget allows.
    """
    begin = time.perf_counter()
    best = first or AdamRecipe(steps=problem.config.choice_steps, batch=_batch(like))
    most, tried = worth(best), 1
    for name, value in variations(like):
        candidate = best.changed({name: value})
        tried += 1
        if (accuracy := worth(candidate)) > most:
            best, most = candidate, accuracy
    for other in others:
        tried += 1
        if (accuracy := worth(other)) >= most:
            best, most = other, accuracy
    return Chosen(best, tried, time.perf_counter() - begin)


def variations(like: DistilledSet) -> Iterator[tuple[str, Any]]:
    """Yield the settings that are varied, the most important first, with their values other than `AdamRecipe`'s own."""
    channels, *size = like.images.shape[-3:]
    if min(size) >= LEAST_SIDE:
        moved = Transforms(shift=max(1, min(size) // 14), rotate=15.0, scale=1.2)
        yield "augment", moved
        if channels == 3:
            yield "augment", moved.changed({"flip": True, "colour": 0.5})
    yield "loss", "squared_error"
    yield "lr", 0.001
    yield "lr", 0.01


def _batch(like: DistilledSet) -> int | None:
    return BATCH if like.num_images > BATCH else None
