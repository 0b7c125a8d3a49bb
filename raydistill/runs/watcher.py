"""How `distill` and `pretrain` report their progress; override what you need."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.config.pretrain_config import PretrainConfig
    from raydistill.runs.run import Metrics, Run


class Watcher:
    """What `distill` calls while it runs."""

    def on_start(self, run: "Run") -> None:
        """Before the first iteration of this process."""

    def on_iteration(self, iteration: int) -> None:
        """After each iteration."""

    def on_metrics(self, run: "Run", metrics: "Metrics") -> None:
        """After each validation."""

    def on_test(self) -> None:
        """Before the final test."""


class PretrainWatcher:
    """What `pretrain` calls while it runs."""

    def on_start(self, config: "PretrainConfig") -> None:
        """Before the first epoch of this process."""

    def on_epoch(self, first: int, epoch: int, loss: float) -> None:
        """After each epoch of the networks trained at once, which begin with network `first`; with their mean loss."""

    def on_end(self) -> None:
        """After the last epoch of this process, also where it was stopped or failed."""
