"""A trial: one distillation that Ray Tune runs step by step."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from raydistill.config.sweep_config import OBJECTIVES
from raydistill.method.recipe import grad_steps
from raydistill.report.tensorboard import TensorBoard
from raydistill.runs.follower import team
from raydistill.runs.run import Run
from raydistill.store.artifact import SUFFIX, save
from raydistill.store.checkpoint import load_checkpoint, save_checkpoint
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.system.errors import Diverged
from raydistill.system.gpu_memory import enough_gpu_memory

BEST = f"best{SUFFIX}"
LOG_TROUBLE = "log_trouble"  # The field of a result that says why the trial's TensorBoard log has gaps.
CHECKPOINT_SHARE = 0.02  # The share of a trial's time that may go into checkpoints.


class DistillTrial(tune.Trainable):
    """A trial whose steps each end with a validation, and whose checkpoints hold the artifact of the best set so far.

    A trial asks for its checkpoints itself: after its first step, and then as often as CHECKPOINT_SHARE allows, by the
    seconds that the last one took (milliseconds in a local folder, seconds in a distant store). Tune adds one at the
    end.
    """

    def setup(self, config: dict[str, Any], inputs: TrialInputs) -> None:
        """Begin the first trial of this actor.

        Args:
            config: the searched settings of the trial.
            inputs: what all trials of the sweep share, from `tune.with_parameters`.
        """
        self.inputs = replace(inputs, data={}, bank=None)  # The arrays go free where they are copied to a GPU.
        self.device = inputs.begin_process(inputs.config_with({}).device)
        with enough_gpu_memory(self.inputs.gpus):
            self.data = inputs.load_data().to(self.device)
            bank = inputs.load_bank()
            self.bank = bank.to(self.device) if bank is not None else None
        self.others = ExitStack()
        self.board: TensorBoard | None = None
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self.cleanup()
        self.__dict__.pop("run", None)  # Its memory is free before the next run takes its own.
        settings = self.inputs.config_with(config)
        workers = self.others.enter_context(team(settings, self.data, self.bank, self.inputs.threads, self.inputs.gpus))
        with enough_gpu_memory(self.inputs.gpus):
            self.run = Run(settings, self.data, self.bank, workers, self.device)
        self.searched = config
        self.ended = self.saved = 0.0  # The ends of the last step and of the last checkpoint.
        self.saving, self.cost = False, 0.0  # Whether one was asked for, and the seconds of the last one.

    def step(self) -> dict[str, Any]:
        """Iterate up to the next validation, and ask for a checkpoint if it is time for one.

        Returns:
            the metrics; val_accuracy and val_loss are those of the best set so far, which is the one in the
            checkpoint. A trial that diverged is done and reports the worst possible values, all finite.
        """
        begin = time.perf_counter()
        if self.saving:
            self.saved, self.cost = begin, begin - self.ended
        with enough_gpu_memory(self.inputs.gpus):
            result = self._advance()
        self.ended = time.perf_counter()
        self.saving = self.ended - self.saved >= self.cost / CHECKPOINT_SHARE
        return result | {SHOULD_CHECKPOINT: self.saving}

    def _advance(self) -> dict[str, Any]:
        if self.run.done:  # It was restored from the last checkpoint of a trial that had ended.
            return self._result({}) | {"done": True}
        if self.board is None:
            data = self.data
            self.board = TensorBoard(self.logdir, data.class_names, data.to_pixels, start=self.run.iteration)
            self.board.hparams(self.searched, list(OBJECTIVES))
        try:
            metrics = self.run.advance() or {}
        except Diverged:
            worst = {name: value for name, value in OBJECTIVES.items() if value is not None}
            return self._result({}) | worst | {"members": [{}], "diverged": 1, "done": True}
        self.board.scalars(self._result(metrics))
        self.board.pictures(self.run.current, self.run.iteration, always=self.run.done)
        gaps = {LOG_TROUBLE: self.board.trouble} if self.board.trouble else {}
        return self._result(metrics) | gaps | {"diverged": 0, "done": self.run.done}

    def _result(self, metrics: dict[str, float]) -> dict[str, Any]:
        run = self.run
        sizes = {"num_images": run.current.num_images, "grad_steps": grad_steps(run.recipe, run.current)}
        last = {"val_accuracy_last": metrics["val_accuracy"]} if "val_accuracy" in metrics else {}
        members = {"members": run.population()} if run.config.population.size > 1 else {}
        result = metrics | last | run.best_metrics | sizes | members
        return result | {"iterations": run.iteration, "seconds": run.seconds}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the run's whole state and the artifact of its best set."""
        with enough_gpu_memory(self.inputs.gpus):
            save_checkpoint(self.run.state_dict(), Path(checkpoint_dir))
            save(self.run.artifact(trial=self.trial_id, searched=self.searched), Path(checkpoint_dir) / BEST)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Continue from a checkpoint folder; on the CPU the results are bit-identical."""
        with enough_gpu_memory(self.inputs.gpus):
            self.run.load_state_dict(load_checkpoint(checkpoint))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process, which keeps what takes seconds to start (torch, the data)."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Close the trial's log, and end its other workers."""
        self.others.close()
        if self.board is not None:
            self.board.close()
            self.board = None
