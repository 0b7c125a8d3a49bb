"""Distributions of initial weights."""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from raydistill.system.errors import UserError

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.BatchNorm2d)
STATISTICS = ("running_mean", "running_var")  # Batch normalisation has these statistics.
LAYERS = (nn.Conv2d, nn.Linear)  # `default` is the distribution of these layers in torch.

# What `gain` stands for where none is given: a factor of the deviation, the deviation itself, or the value.
GAINS = {"xavier": 1.0, "kaiming": math.sqrt(2), "normal": 0.02, "orthogonal": 1.0, "constant": 0.02}


class Draws(Protocol):
    """A distribution of the weights of networks of one structure."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` independent draws [count, P], on the generator's device."""
        ...


class Initialiser:
    """An initialiser of the weights of networks of one structure.

    ==========  ===========================================================================
    xavier      N(0, gain^2 * 2 / (fan_in + fan_out))              Glorot & Bengio 2010
    kaiming     N(0, gain^2 / fan_in)                              He et al. 2015
    normal      N(0, gain^2)                                       Radford et al. 2016
    orthogonal  gain * rows (or columns, if fewer) of a random     Saxe et al. 2014
                rotation, for filters as a matrix [O, I * window]
    constant    gain
    zero, one   0, 1
    default     U(-b, b), b = 1 / sqrt(fan_in), biases as well     torch's Conv2d and Linear
    ==========  ===========================================================================

    These are for weights of two and more dimensions, as in `torch.nn.init`; a unit has `fan_in` inputs, and its input
    feeds `fan_out` units. Biases are 0 (but for default), gains of normalisation layers 1, batch normalisation's
    statistics 0 and 1. With zero, one and constant all units of a layer are equal, and stay so.

    Args:
        module: a network of that structure.
        init: which distribution.
        gain: see above; None for that of `GAINS`.

    Raises:
        UserError: default has no rule for a layer of the module.
    """

    def __init__(self, module: nn.Module, init: str, gain: float | None = None) -> None:
        self.init = init
        self.gain = GAINS.get(init, 1.0) if gain is None else gain
        self.parts = [(tensor.shape, *self._moments(owner, name, tensor)) for owner, name, tensor in tensors_of(module)]
        self._vectors: dict[
            torch.device, tuple[Tensor, Tensor]
        ] = {}  # They are large, so they are made at their first use.

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` independent draws [count, P], on the generator's device."""
        mean, scale = self._moments_on(generator.device)
        if self.init in ("zero", "one", "constant"):
            return mean.repeat(count, 1)
        noise = torch.empty(count, len(mean), device=generator.device)
        if self.init == "default":
            noise.uniform_(-1, 1, generator=generator)
        else:
            noise.normal_(generator=generator)
        if self.init == "orthogonal":
            noise = self._orthogonal(noise)
        return torch.addcmul(mean, noise, scale)

    def _moments_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the moments of each weight, [P] and [P]."""
        if device not in self._vectors:
            sizes = [shape.numel() for shape, _, _ in self.parts]
            mean, scale = torch.tensor([(mean, scale) for _, mean, scale in self.parts], device=device).unbind(1)
            repeats = torch.tensor(sizes, device=device)
            self._vectors[device] = mean.repeat_interleave(repeats), scale.repeat_interleave(repeats)
        return self._vectors[device]

    def _orthogonal(self, noise: Tensor) -> Tensor:
        """Return normal noise [count, P] with each weight's part made orthogonal, uniformly over rotations."""
        shapes = [shape for shape, _, _ in self.parts]
        parts = zip(shapes, noise.split([shape.numel() for shape in shapes], 1), strict=True)
        return torch.cat(
            [
                rotations(part.unflatten(1, (shape[0], -1))).flatten(1) if len(shape) > 1 else part
                for shape, part in parts
            ],
            1,
        )

    def _moments(self, owner: nn.Module, name: str, tensor: Tensor) -> tuple[float, float]:
        """Return the mean of a tensor's initial values, and the factor of the noise around it."""
        if name in STATISTICS:
            return float(name == "running_var"), 0.0
        if isinstance(owner, NORMS):
            return float(name == "weight"), 0.0
        if self.init == "default":
            return 0.0, _bound_of_torch(owner, name)
        if tensor.dim() < 2:
            return 0.0, 0.0
        window = math.prod(tensor.shape[2:])
        fan_in, fan_out = tensor.shape[1] * window, tensor.shape[0] * window
        return {
            "xavier": (0.0, self.gain * math.sqrt(2 / (fan_in + fan_out))),
            "kaiming": (0.0, self.gain / math.sqrt(fan_in)),
            "normal": (0.0, self.gain),
            "orthogonal": (0.0, self.gain),
            "constant": (self.gain, 0.0),
            "zero": (0.0, 0.0),
            "one": (1.0, 0.0),
        }[self.init]


def tensors_of(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield the tensors of a flat weight vector, with their owner and their name there.

    That is the parameters in the order of `named_parameters`, then the statistics of batch normalisation.
    """
    for path, tensor in named_tensors(module):
        owner, _, name = path.rpartition(".")
        yield module.get_submodule(owner), name, tensor


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Return the same tensors with their names in the module's state_dict."""
    yield from module.named_parameters()
    yield from (pair for pair in module.named_buffers() if pair[0].endswith(STATISTICS))


def rotations(noise: Tensor) -> Tensor:
    """Return matrices [count, rows, columns] with orthonormal rows, or columns if they are fewer, from normal noise."""
    wide = noise.shape[1] < noise.shape[2]
    basis, r = torch.linalg.qr(noise.mT if wide else noise)
    q: Tensor = basis * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # Signs make the draw uniform (Mezzadri 2007).
    return q.mT if wide else q


def _bound_of_torch(owner: nn.Module, name: str) -> float:
    """Return b of the uniform distribution U(-b, b) from which torch draws a layer's weight and bias."""
    if not isinstance(owner, LAYERS):
        raise UserError(f"init=default: has no rule for the {name} of a {type(owner).__name__}; choose another init")
    fan_in: int = owner.weight[0].numel()
    return 1 / math.sqrt(fan_in)
