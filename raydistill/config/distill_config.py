"""Every setting of a distillation and of a bank of pretrained networks.

A setting is a field: typed, documented where it stands, checked when it is made. Unknown names fail. The settings of a
sweep are in `raydistill.config.sweep_config`, how they are read is in `raydistill.config.settings`.
"""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from raydistill.config.settings import Seed, Settings


class DataSettings(Settings):
    """The real data."""

    dataset: str = "digits"
    """digits, mnist, fashionmnist, usps, svhn, cifar10, cifar100, voc, cub200, parquet:PATH (parquet or Arrow),
    folder:PATH (images by class) or hf:NAME (of the Hugging Face hub). docs/data.md has what is read how."""
    image_column: str | None = None
    """Column of a table that holds the images; found by itself where there is only one candidate."""
    label_column: str | None = None
    """Column of a table that holds the classes; found by itself where there is only one candidate."""
    hf_config: str | None = None
    """Which of several configurations of a data set of the hub."""
    hf_revision: str | None = None
    """Branch, tag or commit of a data set of the hub; a commit stays what it is."""
    hf_split: str | None = None
    """Splits of a data set of the hub, TRAIN or TRAIN,TEST, as in train[:1000],validation; found by itself."""
    background: str = "white"
    """The colour behind transparent images: white, black or any other of CSS, as #808080."""
    image_size: int | None = Field(None, ge=4, le=1024)
    """Resize all images to this many pixels square; by default they are taken as they are, those of voc and cub200,
    which come in all sizes, at 224."""
    channels: Literal[1, 3] | None = None
    """Make all images grey (1) or, grey ones, three times the same (3); by default they are taken as they are."""
    augment: Literal["none", "crop", "crop_flip"] = "none"
    """What happens to real training images. crop: each is shifted by up to 4 pixels, the border mirrored (for digits).
    crop_flip: half of them are mirrored as well, as Wang et al. 2018 did on CIFAR-10."""
    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the training data held out, by class, to choose between settings and iterations."""
    split_seed: Seed = 0
    """Seed of that split; apart from `seed`, so that runs with different seeds are compared on the same images."""

    @field_validator("background")
    @classmethod
    def _background_is_a_colour(cls, colour: str) -> str:
        from PIL import ImageColor  # only where one is named

        try:
            ImageColor.getrgb(colour)
        except ValueError as error:
            raise ValueError("should be a colour, as white, black or #808080") from error
        return colour

    @model_validator(mode="after")
    def _hub_has_settings(self) -> Self:
        for name in ("hf_config", "hf_revision", "hf_split"):
            if getattr(self, name) is not None and not self.dataset.startswith("hf:"):
                raise ValueError(f"{name}: is for dataset=hf:NAME, not {self.dataset}")
        return self


class NetworkSettings(Settings):
    """The network, and how it is computed."""

    network: str = "lenet"
    """lenet, alexcifarnet, convnet, or torchvision:NAME, as torchvision:alexnet."""
    width: int = Field(128, ge=1, le=4096)
    """Channels of a convnet."""
    depth: int = Field(3, ge=1, le=10)
    """Blocks of a convnet; each halves the image."""
    init: Literal["xavier", "kaiming", "normal", "orthogonal", "zero", "one", "constant", "default"] = "xavier"
    """Distribution of the initial weights (raydistill/networks/initialisers.py). Biases start at zero, except with
    default, which is what torch's own layers draw."""
    init_gain: float | None = None
    """Of xavier (1), kaiming (sqrt 2) and orthogonal (1) the gain, of normal (0.02) the standard deviation, of constant
    (0.02) the value; in brackets what null stands for. zero, one and default take none."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the networks: exact float32; tf32, products with 10-bit mantissas on a GPU; bfloat16, everything
    between weights and logits. What is learned, and its gradient, stay float32."""
    deterministic: bool = False
    """Whether a GPU computes the same bits each time, so that a resumed run ends where an undisturbed one does. LeNet's
    kernels always do; with other networks cuDNN is faster without."""

    @model_validator(mode="after")
    def _gain_means_something(self) -> Self:
        if self.init_gain is not None and self.init in ("zero", "one", "default"):
            raise ValueError(f"init_gain={self.init_gain}: init={self.init} takes none, leave it null")
        if self.init_gain is not None and self.init_gain <= 0 and self.init != "constant":
            raise ValueError(f"init_gain={self.init_gain}: should be greater than 0 for init={self.init}")
        return self


class DistillConfig(DataSettings, NetworkSettings):
    """What to distil, into how much, and how.

    The defaults that differ from Wang et al. 2018 were chosen on MNIST with 10 images and a fixed LeNet;
    benchmarks/results has the runs.
    """

    # -- the task and the initial weights ------------------------------------------------------------------------
    objective: Literal["classify", "adapt", "attack"] = "classify"
    """What a trained network should do. classify: the dataset. adapt: the dataset, with networks pretrained on another
    one. attack: the dataset, but take `attack_class` for `attack_target`, with pretrained networks."""
    attack_class: int | str | None = None
    """Class to be mistaken, by number or name."""
    attack_target: int | str | None = None
    """Class it should be taken for."""
    weights: Literal["fixed", "random", "fixed_pretrained", "random_pretrained"] = "fixed"
    """fixed: one initial network, known beforehand. random: the set must work for any draw of initial weights. Either
    from the initialiser, or _pretrained: from a `bank`."""
    bank: str | None = None
    """Folder of pretrained networks, as `raydistill pretrain` makes it. Or published: the weights that torchvision
    publishes for network=torchvision:NAME, with a last layer drawn from `init`."""

    # -- what is learned -----------------------------------------------------------------------------------------
    images_per_class: int = Field(1, ge=1)
    """Images of each class in each step's minibatch."""
    steps: int = Field(1, ge=1)
    """Number of different minibatches."""
    epochs: int = Field(3, ge=1)
    """Passes over the minibatches."""
    inner_lr: float = Field(0.1, gt=0)
    """Initial step size of the inner gradient steps; one is learned for each step of each epoch."""
    image_init: Literal["auto", "noise", "real"] = "auto"
    """What the images start from: noise, or real training images. auto: real ones with weights=random and
    random_pretrained, where they are better (MNIST, 100 images, validation after 400 iterations: 89.7% against 82.7%;
    USPS to MNIST after 120: 92.3 against 79.1), else noise (MNIST, 10 images and fixed weights, after 3,000: 92.9
    against 86.6; one seed each)."""
    image_std: float = Field(0.2, gt=0)
    """Standard deviation of that noise, in normalised space (1 in the paper)."""
    learn_images: bool = True
    """Whether the images are learned, or stay as they start (label distillation)."""
    images_per_step: int | None = Field(None, ge=1)
    """Images in each step's minibatch in place of images_per_class; fewer than classes need learned labels."""
    labels: Literal["fixed", "softmax", "free"] = "fixed"
    """fixed: as they start. softmax: learned probabilities. free: learned without bounds (Sucholutsky & Schonlau)."""
    label_init: Literal["onehot", "smoothed", "uniform", "random", "orthogonal"] = "onehot"
    """What the labels start from. smoothed: 0.9 one-hot and 0.1 uniform. random: N(0, 1), orthogonal: random directions
    at right angles; with labels=softmax these two are its arguments."""
    label_lr: float | None = Field(None, gt=0)
    """Adam's rate for learned labels; by default outer_lr."""

    # -- how it is learned ---------------------------------------------------------------------------------------
    iterations: int = Field(10000, ge=1)
    """Outer updates."""
    outer_lr: float = Field(0.02, gt=0)
    """Adam's rate for images and step sizes. On MNIST, 10 images: 94.5% with 0.02, 93.6% with 0.03 (one seed each)."""
    rate_lr: float | None = Field(None, gt=0)
    """Adam's rate for the step sizes (their free parameters); by default outer_lr. With random weights and many steps a
    smaller one keeps training from exploding."""
    outer_schedule: Literal["cosine", "constant"] = "cosine"
    """How the outer rate goes over the iterations."""
    batch_size: int = Field(256, ge=1)
    """Real images in each outer iteration."""
    train_nets: int = Field(1, ge=1)
    """Networks sampled in each outer iteration, with random or random_pretrained weights."""
    clip: float | None = Field(2.0, gt=0)
    """Clip the hypergradient at this multiple of the running mean of its norm; null for never."""
    average: float = Field(0.9, ge=0, lt=1)
    """Decay of the running mean over iterations that is validated and kept; 0 keeps the last iterate."""

    compile: bool | Literal["auto"] = "auto"
    """Whether torch's compiler makes fewer kernels of what a GPU computes, which takes it most of a minute. auto: for
    networks other than lenet, where iterations * steps * epochs is 100,000 or more. A CPU does without."""
    workers: int = Field(1, ge=1)
    """Processes that share the networks of each iteration, one on each GPU, through Ray."""
    population: int = Field(1, ge=1)
    """Sets that are learned at once, as one batched computation, to fill a GPU; the best one is kept. The first has the
    given learning rates and seed, the others have their own."""
    population_spread: float = Field(2.0, ge=1)
    """How many times larger or smaller the learning rates of the others may be."""

    # -- how it is watched ---------------------------------------------------------------------------------------
    eval_every: int = Field(50, ge=1)
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
        if self.published and self.objective == "attack":
            raise ValueError("objective=attack needs networks that know the classes; those of bank=published do not")
        if not self.pretrained and self.bank is not None:
            raise ValueError(f"bank={self.bank} needs weights=fixed_pretrained or random_pretrained")
        if not self.pretrained and self.objective != "classify":
            raise ValueError(f"objective={self.objective} needs weights=fixed_pretrained or random_pretrained")
        named = [self.attack_class is not None, self.attack_target is not None]
        if not (all(named) if self.objective == "attack" else not any(named)):
            raise ValueError("objective=attack needs attack_class and attack_target, and only it takes them")
        if self.images_per_step and self.images_per_class > 1:
            raise ValueError("images_per_step stands in place of images_per_class: set only one of them")
        if self.label_lr is not None and self.labels == "fixed":
            raise ValueError("label_lr needs labels=softmax or free: fixed labels are not learned")
        return self

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
        """Where the bank lies that the initial weights come from, if they come from one."""
        return None if self.bank == "published" else self.bank

    @property
    def one_network(self) -> bool:
        """Whether there is only one initial network."""
        return self.weights.startswith("fixed")

    @property
    def starts_from_real(self) -> bool:
        """Whether the images start from real ones."""
        return self.image_init == "real" or (self.image_init == "auto" and not self.one_network)

    @property
    def compiles(self) -> bool:
        """Whether torch's compiler is used on a GPU; a step gains 0.4 ms (AlexCifarNet) to 4.5 (ConvNet) on an H200."""
        if self.compile == "auto":
            return self.network != "lenet" and self.iterations * self.grad_steps >= 100_000
        return self.compile

    @property
    def grad_steps(self) -> int:
        """Gradient steps that training on the set takes."""
        return self.steps * self.epochs


class PretrainConfig(DataSettings, NetworkSettings):
    """A bank of pretrained networks: on what, how many, and how they are trained.

    The networks are trained independently of each other: each from its own initial weights, on its own order of the
    images.
    """

    nets: int = Field(64, ge=1)
    """Networks to train."""
    epochs: int = Field(10, ge=1)
    """Passes over the training images."""
    lr: float = Field(1e-3, gt=0)
    """Adam's rate; it falls to zero as a cosine."""
    batch_size: int = Field(128, ge=1)
    """Images in each step."""
    chunk: int = Field(8, ge=1)
    """Networks trained at once; each finished chunk is kept, so that a stopped bank goes on from there."""
    seed: Seed = 0
    """Seed of the initial weights and the orders of the images."""
