"""The choice of a recipe by validation."""

from dataclasses import replace

import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import AdamRecipe, ScheduleRecipe
from raydistill.evaluation.accuracy import Evaluation
from raydistill.evaluation.baselines import DRAWS, Baselines, random_real
from raydistill.evaluation.problem import Problem
from raydistill.evaluation.recipes import (
    Chosen,
    best_recipe,
    chosen_recipe,
    recipe_so_far,
    validation_recipe,
    variations,
)
from raydistill.method import DistilledSet
from raydistill.system.errors import UserError


def problem_of(digits, **update):
    values = {"weights": "random", "choice.steps": 30, "choice.nets": 2}
    return Problem.of(DistillConfig(**values | update), digits)


def real_set(digits, passes=1, rate=0.001):
    """Ten real images, and a schedule that hardly trains."""
    first = [(digits.train.labels == label).nonzero()[0, 0] for label in range(10)]
    images = digits.train.images[torch.stack(first)][None]
    return DistilledSet.from_rates(images, torch.eye(10)[None], torch.full((passes, 1), rate))


def by(worths, default=0.1):
    """A judge of recipes, by pairs of what a recipe must have and what it is worth; it notes what it saw."""
    seen = []

    def worth(recipe):
        seen.append(recipe)
        return max((value for has, value in worths if has(recipe)), default=default)

    return worth, seen


def test_one_setting_after_the_other_is_varied(digits):
    worth, seen = by([(lambda r: r.augment.rotate > 0, 0.5), (lambda r: r.augment.rotate > 0 and r.lr == 0.001, 0.6)])
    found = best_recipe(worth, problem_of(digits), real_set(digits))
    assert found.candidates == len(seen) == 5
    assert (found.recipe.lr, found.recipe.loss, found.recipe.augment.shift) == (0.001, "cross_entropy", 1)
    assert all(recipe.steps == 30 for recipe in seen)
    flat, _ = by([])
    assert best_recipe(flat, problem_of(digits), real_set(digits)).recipe == AdamRecipe(steps=30)  # of equals the first


def test_a_schedule_is_a_candidate_where_there_is_one(digits):
    worth, seen = by([(lambda r: r == ScheduleRecipe(), 0.9)])
    assert best_recipe(worth, problem_of(digits), real_set(digits), [ScheduleRecipe()]).recipe == ScheduleRecipe()
    assert len(seen) == 6
    flat, _ = by([])
    assert best_recipe(flat, problem_of(digits), real_set(digits), [ScheduleRecipe()]).recipe == ScheduleRecipe()


def test_random_real_images_have_the_recipe_of_the_set_as_a_candidate(digits, monkeypatch):
    """Or their best recipe could be worse than the one that is theirs anyway."""
    tried = []
    monkeypatch.setattr(Baselines, "_one_each", lambda self, images, recipe, rate=0.0: tried.append(recipe))
    monkeypatch.setattr(Baselines, "_tested", lambda self, trained, split: Evaluation(0.5, 0.0, 1.0, 1, {}))
    own = AdamRecipe(lr=0.02, steps=7)
    baselines = Baselines(problem_of(digits), real_set(digits), own)
    found = baselines.best_recipe(baselines.random_sets(2, "random real"))
    assert own in tried
    assert found.recipe == own
    assert found.candidates == 6


def test_random_real_images_are_trained_on_once_where_their_best_recipe_is_that_of_the_set(digits, monkeypatch):
    own = AdamRecipe(lr=0.02, steps=7)
    problem, real = problem_of(digits), real_set(digits)
    monkeypatch.setattr(Baselines, "best_recipe", lambda self, images: Chosen(own))
    same, best, _ = random_real(problem, real, own)
    assert best is same
    baselines = Baselines(problem, real, own)
    assert baselines.by_recipe(baselines.random_sets(DRAWS, "random real"), own) == same
    assert random_real(problem, real, AdamRecipe(lr=0.02, steps=8))[1] == same


def test_colour_images_are_mirrored_and_coloured_as_well():
    photos = DistilledSet(torch.zeros(1, 500, 3, 32, 32), torch.zeros(1, 500, 10), torch.zeros(0, 1))
    changes = [value for name, value in variations(photos) if name == "augment"]
    assert [(change.shift, change.flip, change.colour > 0) for change in changes] == [
        (2, False, False),
        (2, True, True),
    ]
    tiny = DistilledSet(torch.zeros(1, 5, 1, 4, 4), torch.zeros(1, 5, 10), torch.zeros(0, 1))
    assert "augment" not in [name for name, _ in variations(tiny)]


@pytest.mark.slow
def test_validation_chooses_and_the_seed_decides(digits):
    """An optimizer, as a schedule of one tiny step teaches nothing; a set without a schedule has no other choice."""
    problem = problem_of(digits)
    found = chosen_recipe(problem, real_set(digits))
    assert isinstance(found.recipe, AdamRecipe)
    assert found.candidates == 6
    without = chosen_recipe(problem, real_set(digits, passes=0))
    assert (without.recipe, without.candidates) == (found.recipe, 5)
    noise = replace(digits, test=replace(digits.test, labels=digits.test.labels.flip(0)))
    assert chosen_recipe(replace(problem, data=noise), real_set(digits)).recipe == found.recipe


def test_a_named_recipe_is_not_chosen(digits):
    problem = problem_of(digits, **{"recipe": "adam", "recipe.steps": 4})
    assert chosen_recipe(problem, real_set(digits)).recipe == AdamRecipe(steps=4)
    with pytest.raises(UserError, match="recipe=schedule: the set has no learned step sizes"):
        chosen_recipe(problem_of(digits, recipe="schedule"), real_set(digits, passes=0))


def test_validations_of_a_run(digits):
    assert recipe_so_far(problem_of(digits), real_set(digits)) == ScheduleRecipe()
    assert recipe_so_far(problem_of(digits), real_set(digits, passes=0)).steps == 30
    assert recipe_so_far(problem_of(digits, recipe="sgd"), real_set(digits)).name == "sgd"


@pytest.mark.slow
def test_the_first_validation_chooses(digits):
    """With few steps, among recipes that fit the set; where nothing is open, it chooses nothing."""
    problem = problem_of(digits, **{"choice.steps": 400, "choice.nets": 1})
    found = validation_recipe(problem, real_set(digits, passes=0))
    assert isinstance(found, AdamRecipe)
    assert found.steps == 200
    assert found == chosen_recipe(problem, real_set(digits, passes=0), AdamRecipe(steps=200)).recipe
    assert validation_recipe(problem, real_set(digits)) == ScheduleRecipe()
    assert validation_recipe(problem_of(digits, recipe="sgd"), real_set(digits)).name == "sgd"
