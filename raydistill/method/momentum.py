"""Gradient descent with momentum (Polyak 1964), with the interface of `raydistill.method.adam.Adam`."""

import torch
from torch import Tensor


class Momentum:
    """Gradient descent with momentum for stacked parameters [P, ...], updated in place.

    v <- momentum * v + gradient; parameter <- parameter - rate * v, as `torch.optim.SGD` has it.

    Args:
        parameters: to be learned.
        momentum: decay of v.
    """

    def __init__(self, parameters: list[Tensor], momentum: float) -> None:
        self.parameters = parameters
        self.momentum = momentum
        self.sums = [torch.zeros_like(p) for p in parameters]

    def step(self, gradients: list[Tensor], rates: list[Tensor]) -> None:
        """Make one update, with learning rates [P] for each parameter."""
        for parameter, gradient, total, rate in zip(self.parameters, gradients, self.sums, rates, strict=True):
            total.mul_(self.momentum).add_(gradient)
            parameter.sub_(total * rate.view(-1, *[1] * (parameter.dim() - 1)))
