"""The loss of each set between two validations."""

import math

import torch
from torch import Tensor


class MeanLoss:
    """Means over iterations of the losses [P] of P sets. It is kept on the device, which need not be waited for.

    Args:
        sets: P.
        device: of the losses.
    """

    def __init__(self, sets: int, device: torch.device) -> None:
        self.sum, self.count = torch.zeros(sets, device=device), torch.zeros(sets, device=device)

    def add(self, losses: Tensor) -> None:
        """Count the losses [P] of one iteration, those that are finite."""
        self.sum += losses.nan_to_num(0.0, 0.0, 0.0)
        self.count += losses.isfinite()

    def take(self) -> list[float]:
        """Return the mean of each set, inf where no loss was finite, and begin anew. It waits for the device."""
        means: list[float] = (self.sum / self.count).tolist()  # It is 0 / 0 where none was finite.
        self.sum.zero_()
        self.count.zero_()
        return [mean if math.isfinite(mean) else math.inf for mean in means]

    def state_dict(self) -> tuple[Tensor, Tensor]:
        """Return what a resumed run needs."""
        return self.sum, self.count

    def load_state_dict(self, state: tuple[Tensor, Tensor]) -> None:
        """Continue from a `state_dict`."""
        self.sum.copy_(state[0])
        self.count.copy_(state[1])
