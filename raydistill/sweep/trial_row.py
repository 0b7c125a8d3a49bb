"""One trial of a sweep, as the index, the Pareto front, tables, TensorBoard and JSON report it.

`raydistill status` reads it from the index, so neither Ray nor torch is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Status = Literal["PENDING", "RUNNING", "PAUSED", "TERMINATED", "STOPPED", "ERROR"]


@dataclass(frozen=True)
class TrialRow:
    """A trial: its searched settings, how far it came, and what it found.

    Whatever is None is not known yet. Accuracies are fractions; they and the loss are those of the best set so far.
    """

    trial: str
    """The identifier that Tune gave it."""
    status: Status
    """PENDING; RUNNING; PAUSED: interrupted, `--resume` continues it; TERMINATED: did all its iterations, or diverged;
    STOPPED: by the scheduler, or because the budget's hours were over; ERROR."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The searched settings; of a population those of its best member."""
    val_accuracy: float | None = None
    val_accuracy_std: float | None = None
    """Its standard deviation over networks; it is not in the index."""
    val_loss: float | None = None
    num_images: int | None = None
    grad_steps: int | None = None
    iterations: int | None = None
    seconds: float | None = None
    diverged: bool | None = None
    node: str | None = None
    """The address of the machine that computed the last result."""
    artifact: str | None = None
    """Place of the best set: in the newest checkpoint, or tested in the folder `front`."""
    time: datetime | None = None
    """When the last result came."""
    error: str = ""
    """Why the trial failed, as Ray reported it; it is not in the index."""
    tested: Mapping[str, float | int] = field(default_factory=dict)
    """What the final test measured, as `Run.test` returns it: test_accuracy, baseline_same_steps and so on."""
    test_error: str = ""
    """Why the set could not be tested."""

    @property
    def finished(self) -> bool:
        """Whether the trial ended without an error and will not continue."""
        return self.status in ("TERMINATED", "STOPPED")

    @property
    def running(self) -> bool:
        """Whether the trial has begun and will continue, with this driver or the next one."""
        return self.status in ("RUNNING", "PAUSED")
