"""A trial: one distillation as Ray Tune drives it."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import merged
from raydistill.config.sweep_config import OBJECTIVES
from raydistill.data import Dataset
from raydistill.report.tensorboard import TensorBoard
from raydistill.runs.checkpoint import load_checkpoint, save_checkpoint
from raydistill.runs.run import Run
from raydistill.runs.worker_group import team
from raydistill.store.artifact import SUFFIX, save
from raydistill.store.bank import Bank
from raydistill.system.device import pick_device, use_threads
from raydistill.system.errors import Diverged
from raydistill.system.gpu_memory import enough_gpu_memory, use_gpu_share

BEST = f"best{SUFFIX}"
TROUBLE = "log_trouble"  # of a result: why the trial's log in TensorBoard has gaps, for the driver to say
CHECKPOINT_SHARE = 0.02  # of a trial's time may go into checkpoints


class DistillTrial(tune.Trainable):
    """Each step goes on to the next validation; each checkpoint holds the artifact of the best set so far.

    A trial asks for its checkpoints itself: after its first step, and then as often as CHECKPOINT_SHARE allows, by what
    the last one cost (a few milliseconds in a local folder, seconds in a distant store). Tune adds one at the end.

    The parameters of `setup` beside the trial's own config come from `tune.with_parameters`: one copy a node.
    """

    def setup(
        self,
        config: dict[str, Any],
        base: dict[str, Any],
        data: dict[str, Any],
        threads: float,
        gpus: float = 0,
        bank: dict[str, Any] | None = None,
    ) -> None:
        """Begins the first trial of this actor.

        Args:
            config: the searched settings of the trial.
            base: all others, as of DistillConfig.
            data: the real data, as of `Dataset.to_numpy`, in the node's shared memory.
            threads: cores of the trial's slot, or of each worker's.
            gpus: likewise.
            bank: the pretrained networks, as of `Bank.to_numpy`, likewise.
        """
        use_threads(threads)
        self.base = base
        self.threads, self.gpus = threads, gpus
        self.device = pick_device(DistillConfig(**base).device, gpus)
        use_gpu_share(gpus, self.device)
        with enough_gpu_memory(gpus):
            self.data = Dataset.from_numpy(data).to(self.device)
            self.bank = Bank.from_numpy(bank).to(self.device) if bank else None
        self.others = ExitStack()
        self.board: TensorBoard | None = None
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self.cleanup()
        self.__dict__.pop("run", None)  # gives its memory back before the next run takes its own
        settings = DistillConfig(**merged(DistillConfig, self.base, config))
        workers = self.others.enter_context(team(settings, self.data, self.bank, self.threads, self.gpus))
        with enough_gpu_memory(self.gpus):
            self.run = Run(settings, self.data, self.bank, workers, self.device)
        self.searched = config
        self.ended = self.saved = 0.0  # when the last step ended, and the last checkpoint was made
        self.saving, self.cost = False, 0.0  # whether one was asked for, and the seconds that the last one took

    def step(self) -> dict[str, Any]:
        """Iterates up to the next validation, and says whether it is time for a checkpoint.

        Returns:
            the metrics; val_accuracy and val_loss are those of the best set so far, which is the one in the
            checkpoint. A trial that diverged is done and reports the worst values that there are, all finite.
        """
        begin = time.perf_counter()
        if self.saving:
            self.saved, self.cost = begin, begin - self.ended
        with enough_gpu_memory(self.gpus):
            result = self._advance()
        self.ended = time.perf_counter()
        self.saving = self.ended - self.saved >= self.cost / CHECKPOINT_SHARE
        return result | {SHOULD_CHECKPOINT: self.saving}

    def _advance(self) -> dict[str, Any]:
        if self.run.done:  # a checkpoint of the end, restored
            return self._result({}) | {"done": True}
        if self.board is None:
            data = self.data
            self.board = TensorBoard(self.logdir, data.class_names, data.mean, data.std, start=self.run.iteration)
            self.board.hparams(self.searched, list(OBJECTIVES))
        try:
            metrics = self.run.advance() or {}
        except Diverged:
            worst = {name: value for name, value in OBJECTIVES.items() if value is not None}
            return self._result({}) | worst | {"members": [{}], "diverged": 1, "done": True}
        self.board.scalars(self._result(metrics))
        self.board.pictures(self.run.current, self.run.iteration, always=self.run.done)
        told = {TROUBLE: self.board.trouble} if self.board.trouble else {}
        return self._result(metrics) | told | {"diverged": 0, "done": self.run.done}

    def _result(self, metrics: dict[str, float]) -> dict[str, Any]:
        run = self.run
        sizes = {"num_images": run.current.num_images, "grad_steps": run.config.grad_steps}
        last = {"val_accuracy_last": metrics["val_accuracy"]} if "val_accuracy" in metrics else {}
        members = {"members": run.population()} if run.config.population.size > 1 else {}
        result = metrics | last | run.best_metrics | sizes | members
        return result | {"iterations": run.iteration, "seconds": run.seconds}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the run's whole state and the artifact of its best set."""
        with enough_gpu_memory(self.gpus):
            save_checkpoint(self.run, Path(checkpoint_dir))
            save(self.run.artifact(trial=self.trial_id, searched=self.searched), Path(checkpoint_dir) / BEST)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Goes on from a checkpoint folder, bit-identically on the CPU."""
        with enough_gpu_memory(self.gpus):
            self.run.load_state_dict(load_checkpoint(checkpoint))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in the same process: what takes seconds to start (torch, the data) stays."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Closes the trial's log, and lets its other workers go."""
        self.others.close()
        if self.board is not None:
            self.board.close()
            self.board = None
