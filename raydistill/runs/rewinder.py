"""What becomes of a run that decays or explodes: it goes back to its best set, with half the outer rates."""

import logging
import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from raydistill.evaluation.accuracy import WORST_LOSS
from raydistill.method import Distiller
from raydistill.runs.decay import Decay

if TYPE_CHECKING:
    from raydistill.method.workers import Workers

Best = dict[str, float]  # The metrics of a set's best validation so far, none before the first.


class Rewinder:
    """The best state of each set of a population, and the way back to it.

    Args:
        distiller: what learns the sets.
        most: how often each set may go back.
        workers: the processes that hold the same sets, where there are several.
    """

    def __init__(self, distiller: Distiller, most: int, workers: "Workers | None" = None) -> None:
        self.distiller, self.most, self.workers = distiller, most, workers
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

    def judge(self, losses: list[float], accuracies: list[float], best: list[Best]) -> None:
        """Let the sets go back whose learning has decayed.

        Args:
            losses: mean of each set over the iterations since the last validation.
            accuracies: validation accuracy of each set, a fraction.
            best: the metrics of each set's best validation.
        """
        decayed = {
            member: f"the run decays: its validation accuracy is {100 * accuracy:.1f}%"
            for member, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
            if self.decays[member].has_decayed(loss, accuracy, best[member].get("val_accuracy", 0.0))
        }
        self._go_back(decayed, best)

    def rescue(self, losses: list[float], best: list[Best]) -> bool:
        """Let the sets go back whose loss is no longer finite; return whether any did. Arguments as those of `judge`.

        A set does not, where training on the best one explodes as well.
        """
        exploded = {
            member: "the run explodes: its loss is no longer finite"
            for member, loss in enumerate(losses)
            if math.isinf(loss) and best[member].get("val_loss", WORST_LOSS) < WORST_LOSS
        }
        return self._go_back(exploded, best)

    def _go_back(self, why: dict[int, str], best: list[Best]) -> bool:
        """Let sets go back to their best, those that still may, and say why; return whether any did."""
        able = [member for member in why if self.kept[member] and self.rewinds[member] < self.most]
        for member in able:
            self.distiller.rewind(member, self.kept[member])
            self.rewinds[member] += 1
            logging.getLogger("raydistill").warning(
                "%s at iteration %d; it goes back to the set of iteration %d (%.1f%%) with half the outer rates (%d of "
                "outer.rewinds=%d; a smaller outer_lr would need none)",
                why[member],
                self.distiller.iteration,
                best[member]["best_iteration"],
                100 * best[member]["val_accuracy"],
                self.rewinds[member],
                self.most,
            )
        if able and self.workers is not None:
            self.workers.order(self.workers.LOAD, self.distiller.state_dict())
        return bool(able)

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
