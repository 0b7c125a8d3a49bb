"""An ordinary torch network seen as a function of its weights."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Network:
    """logits [B, K] = network(weights [P], images [B, C, H, W]).

    All weights are one flat vector, in the order of the module's `named_parameters`, so that an inner step is one
    tensor operation and N networks are a matrix [N, P] under `torch.vmap`.

    Args:
        module: the network; its weights do not matter.
        init: name of an initialiser.
        dtype: to compute in; weights and images are rounded to it and logits come back in theirs. None for as given.
    """

    def __init__(self, module: nn.Module, init: str = "xavier", dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.module = module.to("meta")  # only its structure counts: the weights always come from outside
        self.shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.mean, self.std = _moments(module, init)

    def __call__(self, weights: Tensor, images: Tensor) -> Tensor:
        """Logits [B, K]; differentiable in both arguments, any number of times."""
        dtype = self.dtype or images.dtype
        logits: Tensor = functional_call(self.module, self.unflatten(weights.to(dtype)), (images.to(dtype),))
        return logits.to(images.dtype)

    @property
    def num_weights(self) -> int:
        """P."""
        return sum(self.sizes)

    def unflatten(self, weights: Tensor) -> dict[str, Tensor]:
        """The weights [P] as the module's named parameters: views, ready for its `load_state_dict`."""
        parts = weights.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def initial_weights(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` draws of initial weights, [count, P], on the generator's device."""
        noise = torch.randn(count, self.num_weights, generator=generator, device=generator.device)
        return torch.addcmul(self.mean.to(noise.device), noise, self.std.to(noise.device))


NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.BatchNorm2d)


def _moments(module: nn.Module, init: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [P] of each initial weight.

    Matrices and filters have mean 0 and the deviation of `INITIALISERS`; biases are 0 and the gains of
    normalisation layers 1, without noise.
    """
    gains = {id(m.weight) for m in module.modules() if isinstance(m, NORMS) and getattr(m, "weight", None) is not None}
    means, stds = [], []
    for parameter in module.parameters():
        std = 0.0
        if parameter.dim() > 1:
            window = math.prod(parameter.shape[2:])
            std = INITIALISERS[init](parameter.shape[1] * window, parameter.shape[0] * window)
        means.append(torch.full((parameter.numel(),), float(id(parameter) in gains)))
        stds.append(torch.full((parameter.numel(),), std))
    return torch.cat(means), torch.cat(stds)


# Standard deviation of a weight whose unit has `fan_in` inputs and whose input feeds `fan_out` units.
INITIALISERS = {
    "xavier": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),  # Glorot & Bengio 2010, normal form
    "kaiming": lambda fan_in, fan_out: math.sqrt(2 / fan_in),  # He et al. 2015, for ReLU
    "normal": lambda fan_in, fan_out: 0.02,  # Radford et al. 2016 (DCGAN)
}
