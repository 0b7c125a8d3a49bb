"""What TensorBoard shows of one distillation: scalars, the images, the step sizes."""

from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from raydistill.method import DistilledSet

PICTURE_EVERY = 10  # validations between the first pictures; they are some 100 KB each, and get rarer


class TensorBoard:
    """Writes event files into a folder.

    Args:
        folder: where; `tensorboard --logdir` on it or any folder above.
        class_names: of the data set.
        mean, std: of the data set, [C], to draw images as pixels.
        start: iteration to go on from; later entries of an earlier, interrupted process are dropped.
    """

    def __init__(
        self, folder: str | Path, class_names: tuple[str, ...], mean: Tensor, std: Tensor, start: int = 0
    ) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=start or None)
        self.class_names, self.mean, self.std = class_names, mean.cpu(), std.cpu()
        self.calls = 0
        self.due = 1

    def scalars(self, metrics: dict[str, Any]) -> None:
        """Writes metrics, those that are numbers, at their iteration."""
        for name, value in metrics.items():
            if name != "iterations" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, int(metrics["iterations"]))

    def hparams(self, values: dict[str, Any], metrics: list[str]) -> None:
        """Enters the run in TensorBoard's table of hyperparameters, beside the last values of these metrics."""
        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        experiment, start, end = hparams(plain, dict.fromkeys(metrics, 0.0))
        assert self.writer.file_writer is not None
        for summary in (experiment, start, end):
            self.writer.file_writer.add_summary(summary)

    def pictures(self, distilled: DistilledSet, iteration: int, always: bool = False) -> None:
        """Draws the set, or waits: a log of a thousand validations has a dozen pictures. `always` draws it."""
        self.calls += 1
        if not always and self.calls < self.due:
            return
        self.due = self.calls + max(PICTURE_EVERY, self.calls)
        from raydistill.report.figures import image_grid, step_sizes  # matplotlib takes its time

        images = distilled.images.detach().cpu() * self.std[:, None, None] + self.mean[:, None, None]
        rates = distilled.learning_rates.detach().cpu()
        grid = image_grid(images, distilled.labels.cpu(), self.class_names, rates)
        self.writer.add_figure("distilled images", grid, iteration)
        self.writer.add_figure("step sizes", step_sizes(rates), iteration)
        self.writer.flush()

    def close(self) -> None:
        """Writes out what is left."""
        self.writer.close()
