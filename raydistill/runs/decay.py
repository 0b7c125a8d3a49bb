"""Decay: with too large an outer rate, a set becomes good for some hundred iterations, and then worse and worse."""

from typing import Any

LOSS_FACTOR = 1.5  # The loss is high where it is so many times the lowest.
ACCURACY_DROP = 0.02  # The validation accuracy is low where it is so far below the best.
PATIENCE = 3  # A run has decayed after so many validations in a row with a high loss and a low accuracy.


class Decay:
    """A detector for one set. It depends on validations alone, not on seconds, so that a resumed run decides the same.

    `benchmarks/decay.py` measures what it brings.
    """

    def __init__(self) -> None:
        self.lowest = float("inf")
        self.in_a_row = 0

    def has_decayed(self, loss: float, accuracy: float, best: float) -> bool:
        """Return whether the run has decayed, after one more validation.

        Args:
            loss: mean over the iterations since the last validation.
            accuracy: validation accuracy, a fraction.
            best: the highest validation accuracy so far.
        """
        # A loss that is not a number is not below the limit, so it counts as high.
        high = not loss <= LOSS_FACTOR * self.lowest
        self.lowest = min(self.lowest, loss)
        self.in_a_row = self.in_a_row + 1 if high and accuracy < best - ACCURACY_DROP else 0
        if self.in_a_row < PATIENCE:
            return False
        self.in_a_row = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"lowest": self.lowest, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.lowest, self.in_a_row = state["lowest"], state["in_a_row"]
