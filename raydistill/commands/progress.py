"""Progress of a single run: the bar on the screen, and TensorBoard."""

import math
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

from raydistill.config.network_settings import described
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.solver_settings import RidgeSettings
from raydistill.report.tensorboard import TensorBoard
from raydistill.runs.run import Metrics, Run
from raydistill.runs.watcher import PretrainWatcher, Watcher
from raydistill.system.output import say


class ProgressBar(Watcher):
    """A bar with iterations, loss, accuracy, pace and time left; without a screen, one line for each validation."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = _bar(console, MofNCompleteColumn())
        self.task = self.bar.add_task("distilling", total=None, status="")

    def on_start(self, run: Run) -> None:
        """Show the bar, at the run's iteration."""
        config, data = run.config, run.problem.data
        images = run.current.num_images
        other = config.solver.network if isinstance(config.solver, RidgeSettings) else None
        learned_with = f", learned with {described(other)}" if other else ""
        say(
            self.console,
            f"{config.dataset} ({len(data.train)} training images) into {images}, {described(config.network)}, "
            f"{config.weights} weights{learned_with}, on {run.problem.device}",
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
            f"loss {metrics.get('loss', math.inf):.3f}  val {100 * metrics['val_accuracy']:.1f}% (best {best:.1f}%)  "
            f"{metrics['iterations_per_second']:.1f} it/s"
        )
        self.bar.update(self.task, status=status)
        if not self.console.is_terminal:
            say(self.console, f"{run.iteration}/{run.config.iterations}  {status}")

    def on_test(self) -> None:
        """Remove the bar, and say what the time is for now."""
        self.bar.stop()
        say(self.console, "testing the best set, and random real images beside it")


class TensorBoardWatcher(Watcher):
    """A watcher that writes the run's scalars and pictures for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board: TensorBoard | None = None

    def on_start(self, run: Run) -> None:
        """Open the event file."""
        data = run.problem.data
        self.board = TensorBoard(self.folder, data.class_names, data.to_pixels, start=run.iteration)

    def on_metrics(self, run: Run, metrics: Metrics) -> None:
        """Write the metrics and, at some validations, the pictures."""
        assert self.board is not None
        self.board.scalars(metrics)
        self.board.pictures(run.current, run.iteration, always=run.done)

    def on_test(self) -> None:
        """Close the event file."""
        assert self.board is not None
        self.board.close()


class PretrainBar(PretrainWatcher):
    """A bar over all epochs of all networks of a bank; without a screen, one line for each epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = _bar(console)
        self.task = self.bar.add_task("pretraining", total=None, status="")
        self.config = PretrainConfig()

    def on_start(self, config: PretrainConfig) -> None:
        """Show the bar."""
        self.config = config
        say(
            self.console,
            f"{config.dataset}: {config.nets} networks ({described(config.network)}), {config.epochs} epochs each",
        )
        self.bar.update(self.task, total=config.nets * config.epochs)
        if self.console.is_terminal:
            self.bar.start()

    def on_epoch(self, first: int, epoch: int, loss: float) -> None:
        """Move the bar."""
        config = self.config
        chunk = min(config.chunk, config.nets - first)
        status = f"networks {first + 1} to {first + chunk}, epoch {epoch}/{config.epochs}, loss {loss:.4f}"
        self.bar.update(self.task, completed=first * config.epochs + epoch * chunk, status=status)
        if not self.console.is_terminal:
            say(self.console, status)

    def on_end(self) -> None:
        """Remove the bar."""
        self.bar.stop()


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
