"""Adam (Kingma & Ba 2015), with a learning rate for each of several problems solved side by side."""

from typing import Any

import torch
from torch import Tensor


class Adam:
    """Adam for stacked parameters [P, ...], updated in place. `torch.optim.Adam` has one rate for all of a tensor.

    Everything, the step count too, is a tensor on the parameters' device, so that a CUDA graph can contain an update.

    Args:
        parameters: to be learned.
        betas: decay of the means of gradients and of squared gradients.
        epsilon: added to the root of the latter.
    """

    def __init__(self, parameters: list[Tensor], betas: tuple[float, float], epsilon: float = 1e-8) -> None:
        self.parameters = parameters
        self.betas = betas
        self.epsilon = epsilon
        self.count = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]

    def step(self, gradients: list[Tensor], rates: list[Tensor]) -> None:
        """Make one update, with learning rates [P] for each parameter."""
        self.count += 1
        unbias_mean, unbias_square = (1 - beta**self.count for beta in self.betas)
        parts = zip(self.parameters, gradients, self.means, self.squares, rates, strict=True)
        for parameter, gradient, mean, square, rate in parts:
            mean.lerp_(gradient, 1 - self.betas[0])
            square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
            root = unbias_square.sqrt().to(parameter.dtype)
            change = mean / (square.sqrt() / root + self.epsilon)
            scale = (rate / unbias_mean).to(parameter.dtype)
            parameter.sub_(change * scale.view(-1, *[1] * (parameter.dim() - 1)))

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the parameters."""
        return {"count": self.count, "means": self.means, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a `state_dict`."""
        self.count.copy_(state["count"])
        for name in ("means", "squares"):
            for mine, theirs in zip(getattr(self, name), state[name], strict=True):
                mine.copy_(theirs)
