"""What becomes of a run that decays: it goes back to its best set, and continues with half the outer rates."""

import logging
from typing import Any

from torch import Tensor

from raydistill.method import Distiller
from raydistill.runs.decay import Decay


class Rewinder:
    """The best state of each set of a population, and the way back to it.

    Args:
        distiller: what learns the sets.
        most: how often each set may go back.
    """

    def __init__(self, distiller: Distiller, most: int) -> None:
        self.distiller, self.most = distiller, most
        sets = range(len(distiller.members))
        self.decays = [Decay() for _ in sets]
        self.kept: list[list[Tensor]] = [[] for _ in sets]
        self.rewinds = [0 for _ in sets]

    @property
    def count(self) -> int:
        """How often any set went back."""
        return sum(self.rewinds)

    def keep(self, member: int) -> None:
        """Keep the state of a set, as it is its best so far."""
        if self.most:
            self.kept[member] = self.distiller.snapshot(member)

    def judge(self, member: int, loss: float, accuracy: float, best: dict[str, float]) -> bool:
        """Let a set go back where its learning has decayed; return whether it did.

        Args:
            member: the number of the set.
            loss: mean over the iterations since the last validation.
            accuracy: validation accuracy, a fraction.
            best: the metrics of its best validation.
        """
        decayed = self.decays[member].has_decayed(loss, accuracy, best.get("val_accuracy", 0.0))
        if not decayed or not self.kept[member] or self.rewinds[member] >= self.most:
            return False
        self.distiller.rewind(member, self.kept[member])
        self.rewinds[member] += 1
        logging.getLogger("raydistill").warning(
            "the run decays: at iteration %d the validation accuracy is %.1f%%, at iteration %d it was %.1f%%; it goes "
            "back to that set with half the outer rates (%d of outer.rewinds=%d; a smaller outer_lr would need none)",
            self.distiller.iteration,
            100 * accuracy,
            best["best_iteration"],
            100 * best["val_accuracy"],
            self.rewinds[member],
            self.most,
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        decays = [decay.state_dict() for decay in self.decays]
        return {"decays": decays, "kept": self.kept, "rewinds": self.rewinds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        for decay, kept in zip(self.decays, state["decays"], strict=True):
            decay.load_state_dict(kept)
        device = self.distiller.learned.images.device
        self.kept = [[tensor.to(device) for tensor in kept] for kept in state["kept"]]
        self.rewinds = list(state["rewinds"])
