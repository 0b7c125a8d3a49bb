"""Settings of what is learned, and of the optimiser that learns it: the sections of `DistillConfig`."""

from typing import Annotated, Literal

from pydantic import Field

from raydistill.config.sections import ShortForm
from raydistill.config.settings import Settings


class Task(Settings):
    """An objective without settings of its own."""

    name: Literal["classify", "adapt"] = "classify"
    """classify: the dataset. adapt: the dataset, with networks pretrained on another one."""


class Attack(Settings):
    """Learn the dataset, but take one class for another, with pretrained networks."""

    name: Literal["attack"] = "attack"
    """attack."""
    attacked: int | str
    """Class to be mistaken, by number or name."""
    target: int | str
    """Class it should be taken for."""


Objective = Annotated[Task | Attack, ShortForm("name")]


class GivenStart(Settings):
    """Where the images start, without settings of its own."""

    name: Literal["auto", "real"] = "auto"
    """real: real training images. auto: real ones with weights=random and random_pretrained, where they are better
    (MNIST, 100 images, validation after 400 iterations: 89.7% against 82.7%; USPS to MNIST after 120: 92.3 against
    79.1), else noise (MNIST, 10 images and fixed weights, after 3,000: 92.9 against 86.6; one seed each)."""


class NoiseStart(Settings):
    """Normal noise to start from."""

    name: Literal["noise"] = "noise"
    """noise."""
    std: float = Field(0.2, gt=0)
    """Its standard deviation, in normalised space (1 in the paper)."""


class Images(Settings):
    """The learned images."""

    init: Annotated[GivenStart | NoiseStart, ShortForm("name")] = GivenStart()
    """What the images start from: auto, real or noise, or a section as {name: noise, std: 1.0}."""
    learned: bool = True
    """Whether the images are learned, or stay as they start (label distillation)."""
    per_step: int | None = Field(None, ge=1)
    """Images in each step's minibatch in place of images_per_class; fewer than classes need learned labels."""

    @property
    def noise_std(self) -> float:
        """The standard deviation of the noise that they start from, where they do."""
        return (self.init if isinstance(self.init, NoiseStart) else NoiseStart()).std


class LabelsBase(Settings):
    """What all labels have."""

    init: Literal["onehot", "smoothed", "uniform", "random", "orthogonal"] = "onehot"
    """What the labels start from. smoothed: 0.9 one-hot and 0.1 uniform. random: N(0, 1), orthogonal: random directions
    at right angles; with labels=softmax these two are its arguments."""


class FixedLabels(LabelsBase):
    """Labels that stay as they start."""

    learned: Literal["fixed"] = "fixed"
    """fixed."""


class LearnedLabels(LabelsBase):
    """Labels that are learned (Sucholutsky & Schonlau 2019)."""

    learned: Literal["softmax", "free"] = "softmax"
    """softmax: as probabilities. free: without bounds."""
    lr: float | None = Field(None, gt=0)
    """Adam's rate for them; by default outer_lr."""


Labels = Annotated[FixedLabels | LearnedLabels, ShortForm("learned")]


class Population(Settings):
    """Sets that are learned at once, as one batched computation, to fill a GPU; the best one is kept."""

    size: int = Field(1, ge=1)
    """How many. The first has the given learning rates and seed, the others have their own."""
    spread: float = Field(2.0, ge=1)
    """How many times larger or smaller the learning rates of the others may be."""


class Outer(Settings):
    """The optimiser of what is learned, Adam, beside its rate `outer_lr`."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """How its rates change over the iterations."""
    rate_lr: float | None = Field(None, gt=0)
    """Its rate for the step sizes (their free parameters); by default outer_lr. With random weights and many steps a
    smaller one keeps training from exploding."""
    clip: float | None = Field(2.0, gt=0)
    """Clip the hypergradient at this multiple of the running mean of its norm; null for never."""
    rewinds: int = Field(3, ge=0)
    """How often a run that decays or explodes goes back to its best set, with half the rates; 0 for never."""
    average: float = Field(0.9, ge=0, lt=1)
    """Decay of the running mean over iterations that is validated and kept; 0 keeps the last iterate."""
