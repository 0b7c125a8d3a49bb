"""The curves of the whole sweep in TensorBoard, beside the logs of its trials."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from raydistill.report.tensorboard import quiet_writer
from raydistill.sweep.stopping.pareto import non_dominated
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.output import aside
from raydistill.system.storage import is_local

FOLDER = "sweep"
CURVES = "the sweep's curves in TensorBoard"


class SweepTensorBoard:
    """Curves over the number of trials done: the trials that failed, the best accuracy, the size of the front.

    Where they cannot be written a line says so, and from then on nothing is written: the sweep continues without.

    Args:
        place: the sweep's folder or address.
        objectives: of the sweep.
        done: trials done at the start; what an earlier driver wrote for more of them is dropped.
    """

    def __init__(self, place: str, objectives: Mapping[str, str], done: int) -> None:
        self.local = is_local(place)
        self.objectives = objectives
        self.counted: set[str] = set()
        self.front: list[TrialRow] = []
        self.best = 0.0
        self.writer: SummaryWriter | None = None
        with aside(CURVES):
            self.folder = Path(place, FOLDER) if self.local else Path(tempfile.mkdtemp(prefix="raydistill-board-"))
            self.writer = quiet_writer(self.folder, done)

    def update(self, rows: Sequence[TrialRow]) -> dict[str, bytes]:
        """Add a point to the curves if a trial has finished since the last call.

        Returns:
            the files that must be written to the storage, by name; none where the log itself lies there.
        """
        if self.writer is None:
            return {}
        writer, self.writer = self.writer, None  # It is put back if nothing fails.
        with aside(CURVES):
            files = self._add(rows, writer)
            self.writer = writer
            return files
        return {}

    def _add(self, rows: Sequence[TrialRow], writer: SummaryWriter) -> dict[str, bytes]:
        done = [row for row in rows if row.finished]
        new = [row for row in done if row.trial not in self.counted and row.val_accuracy is not None]
        if not new:
            return {}
        self.counted |= {row.trial for row in new}
        self.best = max([self.best, *(row.val_accuracy or 0.0 for row in new)])
        self.front = non_dominated(self.front + new, self.objectives)
        values = {"best val_accuracy": self.best, "trials in the front": len(self.front)}
        values["trials failed"] = sum(row.status == "ERROR" for row in rows)
        for name, value in values.items():
            writer.add_scalar(f"sweep/{name}", value, len(done))
        writer.flush()
        if self.local:
            return {}
        return {f"{FOLDER}/{file.name}": file.read_bytes() for file in self.folder.iterdir()}

    def close(self) -> None:
        """Write out what is left, and delete the local log where it is only a draft of the one in the storage."""
        if self.writer is not None:
            with aside(CURVES):
                self.writer.close()
                if not self.local:
                    shutil.rmtree(self.folder, ignore_errors=True)
