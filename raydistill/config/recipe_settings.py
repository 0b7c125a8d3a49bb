"""Settings of the recipe: how networks are trained on a set, be it a distilled one or random real images."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raydistill.config.augment_settings import Transforms
from raydistill.config.sections import ShortForm
from raydistill.config.settings import Settings, flat, validated
from raydistill.system.errors import UserError


class AutoRecipe(Settings):
    """The recipe that validation chooses among a few, within the budget of `choice`."""

    name: Literal["auto"] = "auto"
    """auto."""


class ScheduleRecipe(Settings):
    """The learned schedule: one gradient step after the other, each with its own minibatch and learned step size."""

    name: Literal["schedule"] = "schedule"
    """schedule."""


class OptimizerRecipe(Settings):
    """What all optimizers have."""

    lr: float = Field(0.003, gt=0)
    """Learning rate of the optimizer, after the warm-up and before the decay."""
    steps: int = Field(500, ge=1)
    """Gradient steps."""
    batch: int | None = Field(None, ge=1)
    """Images in each gradient step, drawn in passes over the set; null for the whole set."""
    decay: Literal["cosine", "constant"] = "cosine"
    """How the learning rate changes after the warm-up. cosine: down to 0 at the end."""
    warm_up: int = Field(0, ge=0)
    """Gradient steps in which the learning rate grows, in equal parts, from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Multiple of the weights that is added to their gradient."""
    augment: Transforms = Transforms()
    """Random changes of the images, drawn anew for each image in each step."""
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """cross_entropy, or squared_error: half the squared distance of the logits from labels - 1 / K (FRePo)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warm_up >= self.steps:
            raise ValueError(f"warm_up={self.warm_up}: should be less than steps={self.steps}")
        return self


class AdamRecipe(OptimizerRecipe):
    """Training with Adam."""

    name: Literal["adam"] = "adam"
    """adam."""


class SgdRecipe(OptimizerRecipe):
    """Training with gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    """sgd."""
    lr: float = Field(0.01, gt=0)
    """Learning rate of the optimizer, after the warm-up and before the decay."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Decay of the sum of gradients that the weights follow."""


Recipe = ScheduleRecipe | AdamRecipe | SgdRecipe
"""A recipe by which networks can be trained; `auto` is one only after the choice."""
AnyRecipe = AutoRecipe | Recipe


def recipe_of(values: Mapping[str, Any], where: str = "") -> Recipe:
    """Return the recipe that plain values describe.

    Raises:
        UserError: they describe none, or one that is still to be chosen; the error is prefixed by `where`.
    """
    recipe = validated(RecipeSettings, {"recipe": values}, where).recipe
    if isinstance(recipe, AutoRecipe):
        raise UserError(f"{where}recipe: should be one that was chosen, not auto")
    return recipe


def summary(recipe: Recipe) -> str:
    """Return a recipe in a few words: its name, and its main settings and those that differ from the defaults.

    >>> summary(AdamRecipe(steps=300, loss="squared_error"))
    'adam (lr=0.003 steps=300 loss=squared_error)'
    """
    if isinstance(recipe, ScheduleRecipe):
        return "the learned schedule"
    usual = flat(type(recipe)().model_dump())
    values = flat(recipe.model_dump(exclude={"name"}))
    told = [f"{name}={value}" for name, value in values.items() if name in ("lr", "steps") or value != usual[name]]
    return f"{recipe.name} ({' '.join(told)})"


class Choice(Settings):
    """What the choice of a recipe by validation may cost, for a set with recipe=auto and for random real images.

    Each takes about six candidates; a run prints the seconds.
    """

    steps: int | None = Field(None, ge=1)
    """Gradient steps of each candidate; the learned schedule has its own number. null: a quarter of the run's
    iterations, at most 500, so that a short run has a short choice."""
    nets: int = Field(2, ge=1, le=1000)
    """Networks that are trained by each candidate."""


class RecipeSettings(Settings):
    """How networks are trained on a set."""

    recipe: Annotated[AnyRecipe, ShortForm("name")] = AutoRecipe()
    """auto: chosen by validation at the end of the run. schedule: the learned gradient steps. adam, sgd: an optimizer,
    or a section as {name: adam, lr: 0.001, steps: 1000}. The artifact keeps the recipe that was used."""
    choice: Choice = Choice()
    """What the choice of a recipe by validation may cost."""
