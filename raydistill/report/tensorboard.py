"""The log of one distillation for TensorBoard: scalars, the images, the step sizes."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from raydistill.method import DistilledSet
from raydistill.system.output import in_a_line

PICTURE_EVERY = 10  # Validations from the first picture to the second; each takes 100 KB, so later ones are rarer.

logger = logging.getLogger("raydistill")


class TensorBoard:
    """Writes event files into a folder. Where that fails, a line says so and the run continues.

    Args:
        folder: which `tensorboard --logdir` can show, as any folder above it.
        class_names: of the data set.
        to_pixels: of the data set; it returns images as pixels, to draw them.
        start: the iteration to continue from; later entries of an earlier, interrupted process are dropped.
    """

    def __init__(
        self, folder: str | Path, class_names: tuple[str, ...], to_pixels: Callable[[Tensor], Tensor], start: int = 0
    ) -> None:
        self.folder = Path(folder)
        self.class_names, self.to_pixels = class_names, to_pixels
        self.calls = 0
        self.due = 1.0
        self.trouble = ""
        """The last error, as a line; empty if there was none."""
        self.writer: SummaryWriter | None = None
        with self._going_on():
            self.writer = quiet_writer(self.folder, start)

    def scalars(self, metrics: dict[str, Any]) -> None:
        """Write those of the metrics that are numbers, at their iteration."""
        with self._going_on():
            for name, value in metrics.items():
                if self.writer and name != "iterations" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, int(metrics["iterations"]))

    def hparams(self, values: dict[str, Any], metrics: list[str]) -> None:
        """Add the run to TensorBoard's table of hyperparameters, beside the last values of these metrics."""
        with self._going_on():
            plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
            for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
                if self.writer and self.writer.file_writer:
                    self.writer.file_writer.add_summary(summary)

    def pictures(self, distilled: DistilledSet, iteration: int, always: bool = False) -> None:
        """Draw the set, but rarely: a log of a thousand validations has a dozen pictures.

        Args:
            distilled: the set.
            iteration: at which it is shown.
            always: whether to draw it even if it is too early for another picture.
        """
        self.calls += 1
        if self.writer is None or (not always and self.calls < self.due):
            return
        self.due = self.calls + max(PICTURE_EVERY, self.calls)
        with self._going_on():
            from raydistill.report.figures import (
                any_letters,
                image_grid,
                step_sizes,
            )  # matplotlib takes long to import.

            images = self.to_pixels(distilled.images.detach().cpu())
            rates = distilled.learning_rates.detach().cpu()
            grid = image_grid(images, distilled.labels.cpu(), self.class_names, rates)
            with any_letters():
                self.writer.add_figure("distilled images", grid, iteration)
            if rates.numel():
                self.writer.add_figure("step sizes", step_sizes(rates), iteration)
            self.writer.flush()

    def close(self) -> None:
        """Write out what is left."""
        with self._going_on():
            if self.writer is not None:
                self.writer.close()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Log what fails within it, once for each error, and let the run continue."""
        try:
            yield
        except Exception as error:  # No error may end the run, as nothing depends on the log.
            ends, known = isinstance(error, OSError), self.trouble
            self.trouble = f"TensorBoard's log {'ends' if ends else 'has gaps'}: {in_a_line(error)}"
            if ends:
                self.writer = None
            if self.trouble != known:
                logger.warning("%s: %s", self.folder, self.trouble)


def quiet_writer(folder: Path, start: int = 0) -> SummaryWriter:
    """Return a writer into a folder whose thread shows no traceback; its errors are raised by the writer's next call.

    Args:
        folder: of the log.
        start: the iteration to continue from, see `TensorBoard`.
    """
    _silence_threads()
    return SummaryWriter(str(folder), purge_step=start or None)


@functools.cache
def _silence_threads() -> None:
    """Let TensorBoard's threads show no traceback when they fail; other threads still do."""
    before = threading.excepthook

    def report(error: threading.ExceptHookArgs) -> None:
        if not type(error.thread).__module__.startswith("tensorboard."):
            before(error)

    threading.excepthook = report
