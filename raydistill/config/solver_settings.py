"""Settings of the inner solver: how networks are trained on a set while it is learned."""

from typing import Annotated, Literal

from pydantic import Field

from raydistill.config.network_settings import AnyNetwork
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
    age: int = Field(300, ge=1)
    """Gradient steps after which a network gives way to a new one with initial weights; FRePo has 100."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """What trains a network on the set, one step after each iteration that used it."""
    lr: float = Field(0.003, gt=0)
    """Its step size; FRePo has 0.0003. In the runs described at `strength`, 0.0003 (and an age of 100) gave 95.6%,
    0.003 gave 95.7, 0.01 gave 94.9."""


class RidgeSettings(Settings):
    """The last layer in closed form, on features of networks of different ages (FRePo, Zhou et al. 2022)."""

    name: Literal["ridge"] = "ridge"
    """ridge."""
    strength: float = Field(0.1, gt=0)
    """Ridge strength, in units of the mean diagonal of the Gram matrix; FRePo has 1e-6. On MNIST (100 images, a ConvNet
    of width 32, only real images augmented) validation after 1,000 iterations gave 94.1% with 0.001, 95.1 with 0.01,
    95.7 with 0.1, 95.2 with 0.3 (one seed each)."""
    network: AnyNetwork | None = None
    """The network that gives the features, where it is another one than the set is for; null: the same. It needs
    weights=random. 100 images of MNIST for LeNets gave 95.4% with the features of a ConvNet of width 32
    (sweeps/cpu/mnist_random_100.yaml), 93.1 by solver=unroll (sweeps/paper/mnist_random_100.yaml)."""
    pool: Pool = Pool()
    """The networks of different ages that give the features."""
    mirror: bool = False
    """Whether the regression sees the mirror image of each learned image as well (FRePo on colour images)."""
    margin: bool = False
    """Whether the largest entry of each learned label is kept 1 / K ahead of the second (FRePo)."""


Solver = Annotated[UnrollSettings | RidgeSettings, ShortForm("name")]
