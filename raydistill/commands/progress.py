"""Progress of a single run: the bar on the screen, and TensorBoard."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from raydistill.config.pretrain_config import PretrainConfig
from raydistill.report.tensorboard import TensorBoard
from raydistill.runs.distillation import Watcher
from raydistill.runs.run import Metrics, Run
from raydistill.system.output import say


class ProgressBar(Watcher):
    """A bar with iterations, loss, accuracy, pace and time left; without a screen, one line for each validation."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = _bar(console, MofNCompleteColumn())
        self.task = self.bar.add_task("distilling", total=None, status="")

    def on_start(self, run: Run) -> None:
        """Show the bar, at the run's iteration."""
        config, data = run.config, run.data
        images = run.current.num_images
        say(
            self.console,
            f"{config.dataset} ({len(data.train)} training images) into {images}, {config.network.name}, "
            f"{config.weights} weights, on {run.device}",
        )
        self.bar.update(self.task, total=config.iterations, completed=run.iteration)
        if self.console.is_terminal:
            self.bar.start()

    def on_iteration(self, iteration: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=iteration)

    def on_metrics(self, run: Run, metrics: Metrics) -> None:
        """Show the newest metrics."""
        best = 100 * run.best_metrics["val_accuracy"]
        status = (
            f"loss {metrics['loss']:.3f}  val {100 * metrics['val_accuracy']:.1f}% (best {best:.1f}%)  "
            f"{metrics['iterations_per_second']:.1f} it/s"
        )
        self.bar.update(self.task, status=status)
        if not self.console.is_terminal:
            say(self.console, f"{run.iteration}/{run.config.iterations}  {status}")

    def on_test(self) -> None:
        """Remove the bar."""
        self.bar.stop()


class TensorBoardWatcher(Watcher):
    """A watcher that writes the run's scalars and pictures for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board: TensorBoard | None = None

    def on_start(self, run: Run) -> None:
        """Open the event file."""
        data = run.data
        self.board = TensorBoard(self.folder, data.class_names, data.mean, data.std, start=run.iteration)

    def on_metrics(self, run: Run, metrics: Metrics) -> None:
        """Write the metrics and, at some validations, the pictures."""
        assert self.board is not None
        self.board.scalars(metrics)
        self.board.pictures(run.current, run.iteration, always=run.done)

    def on_test(self) -> None:
        """Close the event file."""
        assert self.board is not None
        self.board.close()


@contextmanager
def pretrain_bar(console: Console, config: PretrainConfig) -> Iterator[Callable[[int, int, float], None]]:
    """Show a bar over all epochs of all networks of a bank; yield the function to call after each epoch."""
    bar = _bar(console)
    task = bar.add_task("pretraining", total=config.nets * config.epochs, status="")
    say(console, f"{config.dataset}: {config.nets} networks ({config.network.name}), {config.epochs} epochs each")
    if console.is_terminal:
        bar.start()

    def tell(first: int, epoch: int, loss: float) -> None:
        """Show an epoch of the chunk that begins with network `first`."""
        chunk = min(config.chunk, config.nets - first)
        status = f"networks {first + 1} to {first + chunk}, epoch {epoch}/{config.epochs}, loss {loss:.4f}"
        bar.update(task, completed=first * config.epochs + epoch * chunk, status=status)
        if not console.is_terminal:
            say(console, status)

    try:
        yield tell
    finally:
        bar.stop()


def _bar(console: Console, *columns: ProgressColumn) -> Progress:
    """Return a bar with a status and the time left; without a screen it is never shown."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=not console.is_terminal,
    )
