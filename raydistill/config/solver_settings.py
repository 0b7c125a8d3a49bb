"""Settings of the inner solver: how networks are trained on a set while it is learned."""

from typing import Annotated, Literal

from pydantic import Field

from raydistill.config.sections import ShortForm
from raydistill.config.settings import Settings


class UnrollSettings(Settings):
    """Gradient steps from the initial weights, through all of which the hypergradient goes (Wang et al. 2018)."""

    name: Literal["unroll"] = "unroll"
    """unroll."""


class Pool(Settings):
    """The networks of different ages that ridge regression takes its features from."""

    size: int = Field(10, ge=1, le=10_000)
    """Networks in the pool, of each set of the population."""
    age: int = Field(100, ge=1)
    """Gradient steps after which a network gives way to a new one with initial weights."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """What trains a network on the set, one step after each iteration that used it."""
    lr: float = Field(0.0003, gt=0)
    """Its step size (FRePo's)."""


class RidgeSettings(Settings):
    """The last layer in closed form, on features of networks of different ages (FRePo, Zhou et al. 2022)."""

    name: Literal["ridge"] = "ridge"
    """ridge."""
    strength: float = Field(1e-6, gt=0)
    """Ridge strength, in units of the mean diagonal of the Gram matrix (FRePo's)."""
    pool: Pool = Pool()
    """The networks that give the features."""
    mirror: bool = False
    """Whether the regression sees the mirror image of each learned image as well (FRePo on colour images)."""
    margin: bool = False
    """Whether the largest entry of each learned label is kept 1 / K ahead of the second (FRePo)."""


Solver = Annotated[UnrollSettings | RidgeSettings, ShortForm("name")]
