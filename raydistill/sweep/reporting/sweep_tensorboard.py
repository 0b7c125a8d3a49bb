"""The sweep as a whole in TensorBoard, beside its trials."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raydistill.report.tensorboard import quiet_writer
from raydistill.sweep.reporting.index import FINISHED
from raydistill.sweep.stopping.pareto import non_dominated
from raydistill.system.storage import is_local

FOLDER = "sweep"


class Board:
    """Curves over the number of trials done: those that failed, the best accuracy, the size of the front.

    Args:
        place: the sweep's folder or address.
        objectives: of the sweep.
        done: trials done at the start; what an earlier driver wrote after it is dropped.
    """

    def __init__(self, place: str, objectives: Mapping[str, str], done: int) -> None:
        self.local = is_local(place)
        self.folder = Path(place, FOLDER) if self.local else Path(tempfile.mkdtemp(prefix="raydistill-board-"))
        self.objectives = objectives
        self.writer = quiet_writer(self.folder, done)
        self.counted: set[str] = set()
        self.front: list[dict[str, Any]] = []
        self.best = 0.0

    def update(self, rows: list[dict[str, Any]]) -> dict[str, bytes]:
        """Enters what is new among the rows of the index.

        Returns:
            the files to be sent to the storage, by name; none where the log lies there.
        """
        done = [row for row in rows if row["status"] in FINISHED]
        new = [row for row in done if row["trial"] not in self.counted and row["val_accuracy"] is not None]
        if not new:
            return {}
        self.counted |= {row["trial"] for row in new}
        self.best = max([self.best, *(row["val_accuracy"] for row in new)])
        self.front = non_dominated(self.front + new, self.objectives)
        values = {"best val_accuracy": self.best, "trials in the front": len(self.front)}
        values["trials failed"] = sum(row["status"] == "ERROR" for row in rows)
        for name, value in values.items():
            self.writer.add_scalar(f"sweep/{name}", value, len(done))
        self.writer.flush()
        if self.local:
            return {}
        return {f"{FOLDER}/{file.name}": file.read_bytes() for file in self.folder.iterdir()}

    def close(self) -> None:
        """Ends the log, and deletes it where it was but a draft of what lies in the storage."""
        self.writer.close()
        if not self.local:
            shutil.rmtree(self.folder, ignore_errors=True)
