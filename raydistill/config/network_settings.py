"""Settings of the network: which one, its initial weights, and how it is computed."""

from typing import Annotated, Literal

from pydantic import Field

from raydistill.config.marks import DecidesFit, SameForAllTrials
from raydistill.config.sections import ShortForm, StartsWith
from raydistill.config.settings import Settings

TORCHVISION = "torchvision:"


class ScaledInit(Settings):
    """Random initial weights whose scale can be chosen; biases start at zero."""

    name: Literal["xavier", "kaiming", "normal", "orthogonal"] = "xavier"
    """Distribution of the weights (raydistill/networks/initialisers.py)."""
    gain: float | None = Field(None, gt=0)
    """Of xavier (1), kaiming (sqrt 2) and orthogonal (1) the gain, of normal (0.02) the standard deviation; in brackets
    what null stands for."""


class ConstantInit(Settings):
    """Initial weights that are all one number; biases start at zero."""

    name: Literal["constant"] = "constant"
    """The same number for all weights."""
    gain: float | None = None
    """That number; null stands for 0.02."""


class PlainInit(Settings):
    """Initial weights without a scale."""

    name: Literal["zero", "one", "default"] = "default"
    """zero, one: what all weights start at; biases start at zero. default: weights and biases as torch's own layers
    draw them."""

    @property
    def gain(self) -> None:
        """None, as for a gain that nobody chose."""


Init = Annotated[ScaledInit | ConstantInit | PlainInit, ShortForm("name")]


class NetworkBase(Settings):
    """What all networks have."""

    init: Init = ScaledInit()
    """Distribution of the initial weights: xavier, kaiming, normal, orthogonal, zero, one, constant, default, or a
    section as {name: normal, gain: 0.1}."""

    def about(self) -> dict[str, str | int]:
        """Return what a result should say of the network beside its name, by name."""
        return {}


class LeNetSettings(NetworkBase):
    """LeNet."""

    name: Literal["lenet"] = "lenet"
    """lenet."""


class AlexCifarNetSettings(NetworkBase):
    """The AlexNet for small images of Wang et al. 2018."""

    name: Literal["alexcifarnet"] = "alexcifarnet"
    """alexcifarnet."""


class ConvNetSettings(NetworkBase):
    """Blocks of convolution, normalisation, ReLU and pool, as most papers on distillation have them."""

    name: Literal["convnet"] = "convnet"
    """convnet."""
    width: int = Field(128, ge=1, le=4096)
    """Channels."""
    depth: int = Field(3, ge=1, le=10)
    """Blocks; each halves the image."""

    def about(self) -> dict[str, str | int]:
        """Return width, depth and normalisation: papers call networks ConvNet that differ in these."""
        return {"width": self.width, "depth": self.depth, "norm": "instance"}


class TorchvisionSettings(NetworkBase):
    """A classifier of torchvision."""

    name: Annotated[str, StartsWith(TORCHVISION)]
    """torchvision:NAME, as torchvision:alexnet."""


AnyNetwork = Annotated[
    LeNetSettings | AlexCifarNetSettings | ConvNetSettings | TorchvisionSettings, ShortForm("name"), DecidesFit()
]


def described(network: "LeNetSettings | AlexCifarNetSettings | ConvNetSettings | TorchvisionSettings") -> str:
    """Return a network's name as it should stand beside a result.

    >>> described(ConvNetSettings(width=32))
    'convnet (width 32, depth 3, instance norm)'
    """
    parts = [f"{value} norm" if name == "norm" else f"{name} {value}" for name, value in network.about().items()]
    return f"{network.name} ({', '.join(parts)})" if parts else network.name


class NetworkSettings(Settings):
    """The network, and how it is computed."""

    network: AnyNetwork = LeNetSettings()
    """lenet, alexcifarnet, convnet or torchvision:NAME, or a section as {name: convnet, width: 32, init: kaiming}."""
    device: Annotated[str, SameForAllTrials()] = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the networks: exact float32; tf32, products with 10-bit mantissas on a GPU; bfloat16, everything
    between weights and logits. What is learned, and its gradient, stay float32."""
    deterministic: bool = False
    """Whether a GPU computes the same bits each time, so that a resumed run ends where an undisturbed one does. LeNet's
    kernels always do; with other networks cuDNN is faster without."""
