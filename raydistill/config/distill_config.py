"""Every setting of a distillation.

A setting is a field: typed, documented where it stands, checked when it is made. A setting that means something only
beside another stands in the section of that one. Unknown names fail. The settings of a sweep are in
`raydistill.config.sweep_config`.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raydistill.config.data_settings import DataSettings
from raydistill.config.learned_settings import (
    FixedLabels,
    Images,
    Labels,
    Objective,
    Outer,
    Population,
    Task,
)
from raydistill.config.marks import DecidesFit, SameForAllTrials
from raydistill.config.network_settings import NetworkSettings
from raydistill.config.recipe_settings import RecipeSettings
from raydistill.config.sections import ShortForm
from raydistill.config.settings import Seed
from raydistill.config.solver_settings import RidgeSettings, Solver, UnrollSettings


class DistillConfig(DataSettings, NetworkSettings, RecipeSettings):
    """What to distil, into how much, and how.

    The defaults that differ from Wang et al. 2018 were chosen on MNIST with 10 images and a fixed LeNet;
    benchmarks/results has the runs.
    """

    # -- the task and the initial weights ------------------------------------------------------------------------
    objective: Annotated[Objective, DecidesFit()] = Task()
    """What a trained network should do. classify: the dataset. adapt: the dataset, with networks pretrained on another
    one. {name: attack, attacked: CLASS, target: CLASS}: the dataset, but take one class for another, with pretrained
    networks."""
    weights: Annotated[Literal["fixed", "random", "fixed_pretrained", "random_pretrained"], DecidesFit()] = "fixed"
    """fixed: one initial network, known beforehand. random: the set must work for any draw of initial weights. Either
    from the initialiser, or _pretrained: from a `bank`."""
    bank: Annotated[str | None, SameForAllTrials()] = None
    """Folder of pretrained networks, as `raydistill pretrain` makes it. Or published: the weights that torchvision
    publishes for network=torchvision:NAME, with a last layer drawn from `network.init`."""

    # -- what is learned -----------------------------------------------------------------------------------------
    images_per_class: int = Field(1, ge=1)
    """Images of each class in each step's minibatch."""
    steps: int = Field(1, ge=1)
    """Number of different minibatches."""
    epochs: int = Field(3, ge=1)
    """Passes over the minibatches."""
    inner_lr: float = Field(0.1, gt=0)
    """Initial step size of the inner gradient steps; one is learned for each step of each epoch."""
    images: Images = Images()
    """The learned images."""
    labels: Labels = FixedLabels()
    """fixed: as they start. softmax: learned probabilities. free: learned without bounds (Sucholutsky & Schonlau 2019).
    Or a section as {learned: softmax, init: smoothed, lr: 0.01}."""
    population: Annotated[Population, ShortForm("size")] = Population()
    """Sets that are learned at once, as one batched computation, to fill a GPU; the best one is kept. A number, or a
    section as {size: 4, spread: 2.0}."""

    # -- how it is learned ---------------------------------------------------------------------------------------
    solver: Annotated[Solver, DecidesFit()] = UnrollSettings()
    """How networks are trained on the set while it is learned. unroll: by steps * epochs gradient steps, better for
    fixed weights. ridge: only the last layer, in closed form, better for random weights. Or a section:
    {name: ridge, margin: true}.
    """
    iterations: Annotated[int, Field(ge=1), SameForAllTrials()] = 10000
    """Outer updates."""
    outer_lr: float = Field(0.02, gt=0)
    """Adam's rate for images and step sizes. On MNIST, 10 images: 94.5% with 0.02, 93.6% with 0.03 (one seed each)."""
    outer: Outer = Outer()
    """The optimiser of what is learned, beside its rate."""
    batch_size: int = Field(256, ge=1)
    """Real images in each outer iteration."""
    train_nets: Annotated[int, Field(ge=1), DecidesFit()] = 1
    """Networks sampled in each outer iteration, with random or random_pretrained weights."""
    compile: bool | Literal["auto"] = "auto"
    """Whether torch's compiler makes fewer kernels of what a GPU computes, which takes it most of a minute. auto: for
    networks other than lenet, where iterations * steps * epochs is 100,000 or more. A CPU does without."""
    workers: Annotated[int, Field(ge=1), SameForAllTrials()] = 1
    """Processes that share the networks of each iteration, one on each GPU, through Ray."""

    # -- how it is watched ---------------------------------------------------------------------------------------
    eval_every: Annotated[int, Field(ge=1), SameForAllTrials()] = 50
    """Iterations between two validations (and two log lines)."""
    val_nets: int = Field(8, ge=1, le=10_000)
    """Fresh networks a validation trains, with random weights; with fixed weights there is only one."""
    test_nets: int = Field(50, ge=1, le=10_000)
    """Fresh networks of the final test, with random weights."""

    seed: Seed = 0
    """Seed of the initial images, the initial weights and the real batches."""

    @model_validator(mode="after")
    def _possible(self) -> "DistillConfig":
        if self.one_network and self.train_nets > 1:
            raise ValueError(f"train_nets={self.train_nets} needs weights=random: with {self.weights} all are the same")
        if self.train_nets % self.workers:
            raise ValueError(
                f"workers={self.workers}: train_nets={self.train_nets}, which they share, must be a multiple"
            )
        if self.workers > 1 and self.device.startswith("cuda:"):
            raise ValueError(f"device={self.device}: Ray chooses the GPU of each of workers={self.workers}; say cuda")
        if self.pretrained and self.bank is None:
            raise ValueError(
                f"weights={self.weights} needs bank=FOLDER, which raydistill pretrain makes, or bank=published"
            )
        if self.published and self.objective.name == "attack":
            raise ValueError("objective=attack needs networks that know the classes; those of bank=published do not")
        if self.published and self.data.zca is not None:
            raise ValueError("data.zca: the networks of bank=published know images as they are; leave it at null")
        if not self.pretrained and self.bank is not None:
            raise ValueError(f"bank={self.bank} needs weights=fixed_pretrained or random_pretrained")
        if not self.pretrained and self.objective.name != "classify":
            raise ValueError(f"objective={self.objective.name} needs weights=fixed_pretrained or random_pretrained")
        if isinstance(self.solver, RidgeSettings):
            self._check_ridge(self.solver)
        if self.data.balanced and self.objective.name == "attack":
            raise ValueError(
                "data.balanced: with objective=attack half of a real batch is of the attacked class; leave it at false"
            )
        if self.images.per_step and self.images_per_class > 1:
            raise ValueError("images.per_step stands in place of images_per_class: set only one of them")
        return self

    def _check_ridge(self, solver: RidgeSettings) -> None:
        if self.objective.name == "attack":
            raise ValueError("objective=attack: solver=ridge cannot serve it; use solver=unroll")
        if solver.network is not None and self.weights != "random":
            raise ValueError(f"solver.network: needs weights=random, for which the set is learned; got {self.weights}")
        if self.train_nets > solver.pool.size:
            raise ValueError(f"train_nets={self.train_nets}: is more than solver.pool.size={solver.pool.size}")
        if solver.margin and self.labels.learned == "fixed":
            raise ValueError("solver.margin: is for learned labels; set labels=free or labels=softmax")
        for name, value in (("epochs", self.epochs), ("inner_lr", self.inner_lr)):
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name}={value}: is for solver=unroll; ridge takes no gradient steps on the set")
        if self.outer.rate_lr is not None:
            raise ValueError(f"outer.rate_lr={self.outer.rate_lr}: is for solver=unroll; ridge learns no step sizes")

    @property
    def pretrained(self) -> bool:
        """Whether the initial weights come from a bank."""
        return self.weights.endswith("_pretrained")

    @property
    def published(self) -> bool:
        """Whether the initial weights are those that torchvision publishes."""
        return self.pretrained and self.bank == "published"

    @property
    def bank_folder(self) -> str | None:
        """Folder of the bank that the initial weights come from, if they come from one."""
        return None if self.bank == "published" else self.bank

    @property
    def one_network(self) -> bool:
        """Whether there is only one initial network."""
        return self.weights.startswith("fixed")

    @property
    def starts_from_real(self) -> bool:
        """Whether the images start from real ones."""
        start = self.images.init.name
        return start == "real" or (start == "auto" and not self.one_network)

    @property
    def compiles(self) -> bool:
        """Whether torch's compiler is used on a GPU; a step gains 0.4 ms (AlexCifarNet) to 4.5 (ConvNet) on an H200."""
        if self.compile == "auto":
            unrolled = self.solver.name == "unroll"
            return unrolled and self.network.name != "lenet" and self.iterations * self.grad_steps >= 100_000
        return self.compile

    @property
    def passes(self) -> int:
        """Passes of the learned schedule over the minibatches, E; ridge learns none."""
        return self.epochs if self.solver.name == "unroll" else 0

    @property
    def choice_steps(self) -> int:
        """Gradient steps of each candidate, where validation chooses a recipe."""
        return self.choice.steps or min(500, max(1, self.iterations // 4))

    @property
    def grad_steps(self) -> int:
        """Gradient steps of the learned schedule."""
        return self.steps * self.passes
