"""What a sweep leaves behind."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import merged
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_sections import Resources
from raydistill.data import Dataset
from raydistill.runs.checkpoint import load_checkpoint
from raydistill.runs.run import Run
from raydistill.store.artifact import SUFFIX, load, save
from raydistill.store.bank import Bank
from raydistill.sweep.error_reasons import explain
from raydistill.sweep.searching.trial import BEST
from raydistill.sweep.stopping.pareto import non_dominated
from raydistill.sweep.surviving.holder import HEARTBEAT
from raydistill.system.device import pick_device, use_threads
from raydistill.system.gpu_memory import enough_gpu_memory, use_gpu_share
from raydistill.system.storage import join, write_json

logger = logging.getLogger("raydistill")


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found: a row for each trial, and those of them that no other is better than in all objectives.

    A row has trial, config (the searched values), the objectives, num_images and iterations; one of the front also
    artifact, test_accuracy, and baseline_random_real, the test accuracy of as many random real images; or test_error,
    why it could not be tested.
    """

    config: SweepConfig
    folder: str
    trials: list[dict[str, Any]]
    front: list[dict[str, Any]]
    stopped: bool = False
    """By somebody's wish, before its end; `--resume` goes on."""
    failed: int = 0
    """Trials that were given up; `--resume` tries them again."""

    def to_json(self) -> dict[str, Any]:
        """For scripts: name, storage, trials, how many failed and the front."""
        keys = ("trial", "val_accuracy", "test_accuracy", "baseline_random_real", "num_images", "artifact", "config")
        return {
            "name": self.config.name,
            "storage": self.folder,
            "trials": len(self.trials),
            "failed": self.failed,
            "stopped": self.stopped,
            "front": [{key: row.get(key) for key in keys} for row in self.front],
        }


def collect(
    config: SweepConfig,
    folder: str,
    results: tune.ResultGrid,
    shared: dict[str, Any],
    places: Resources,
    check: Callable[[], None] = lambda: None,
) -> SweepResult:
    """The rows of all trials that reported, and the front, whose artifacts are tested and kept in FOLDER/front.

    Args:
        config: the sweep.
        folder: its place.
        results: what Tune kept.
        shared: what all trials share, as of `DistillTrial.setup`.
        places: what a trial occupied.
        check: is called before anything is written; raises where the sweep is another driver's.
    """
    rows: list[dict[str, Any]] = []
    for result in results:
        metrics = result.metrics or {}
        if "val_accuracy" not in metrics or result.checkpoint is None:
            continue
        keys = ("num_images", "iterations", "diverged", *config.objectives, "val_accuracy", "val_accuracy_std")
        rows.append(
            {key: metrics.get(key) for key in keys}
            | {"trial": metrics["trial_id"], "config": searched_settings(metrics), "error": str(result.error or "")}
            | {"checkpoint": result.checkpoint, "settings": merged(DistillConfig, shared["base"], metrics["config"])}
        )
    rows.sort(key=lambda row: -row["val_accuracy"])
    front = sorted(non_dominated(rows, config.objectives), key=lambda row: row["num_images"])
    for row in front:
        row["artifact"] = join(folder, "front", f"trial-{row['trial']}{SUFFIX}")
    _test(front, shared, places, check)
    for row in rows:
        del row["checkpoint"], row["settings"]
    write_json(join(folder, "front.json"), front)
    return SweepResult(config, folder, rows, front, failed=results.num_errors)


def _test(front: list[dict[str, Any]], shared: dict[str, Any], places: Resources, check: Callable[[], None]) -> None:
    """Tests the sets of the front, in places like the trials', and keeps them as artifacts.

    One that cannot be tested stays, with the reason; `--resume` tests all of them again.
    """
    task: Any = ray.remote(num_cpus=places.cpu, num_gpus=places.gpu)(final_test)
    given = ray.put(shared)
    tests = [task.remote(row["settings"], row["checkpoint"], given) for row in front]
    for row, test in zip(front, tests, strict=True):
        while not ray.wait([test], timeout=HEARTBEAT)[0]:
            check()
        check()
        try:
            results = ray.get(test)
        except RayError as error:
            results, row["test_error"] = {}, explain(str(error))
            logger.warning("trial %s of the front is not tested: %s", row["trial"], row["test_error"])
        with row["checkpoint"].as_directory() as checkpoint:
            artifact = load(os.path.join(checkpoint, BEST))
        save(replace(artifact, metrics={**artifact.metrics, **results}), row["artifact"])
        row |= results


def final_test(settings: dict[str, Any], checkpoint: tune.Checkpoint, shared: dict[str, Any]) -> dict[str, float | int]:
    """Tests the best set of a trial's checkpoint, on any node, as the end of `raydistill distill` does."""
    use_threads(shared["threads"])
    config = DistillConfig(**settings | {"workers": 1})
    device = pick_device(config.device, shared["gpus"])
    use_gpu_share(shared["gpus"], device)
    bank = Bank.from_numpy(shared["bank"]) if shared["bank"] else None
    with enough_gpu_memory(shared["gpus"]), checkpoint.as_directory() as folder:
        run = Run(config, Dataset.from_numpy(shared["data"]), bank, device=device)
        run.load_state_dict(load_checkpoint(folder))
        return run.test()


def searched_settings(metrics: dict[str, Any]) -> dict[str, Any]:
    """The searched settings of a trial's best set; of a population those of its best member."""
    config: dict[str, Any] = metrics["config"]
    member = metrics["members"][metrics.get("best_member", 0)] if "members" in metrics else {}
    return {name: member.get(name, value) for name, value in config.items()}
