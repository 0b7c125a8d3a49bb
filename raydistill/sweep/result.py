"""What a sweep leaves behind."""

import os
from dataclasses import dataclass
from typing import Any

from ray import tune

from raydistill.artifact import SUFFIX, load, save
from raydistill.storage import join, write_json
from raydistill.sweep.front import non_dominated
from raydistill.sweep.trainable import BEST
from raydistill.sweep_config import SweepConfig


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found: a row for each trial, and those of them that no other is better than in all objectives.

    A row has trial, status, config (the searched values), the objectives, num_images, iterations, and artifact.
    """

    config: SweepConfig
    folder: str
    trials: list[dict[str, Any]]
    front: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """For scripts: name, storage, trials and the front."""
        keys = ("trial", "val_accuracy", "num_images", "artifact", "config")
        return {
            "name": self.config.name,
            "storage": self.folder,
            "trials": len(self.trials),
            "front": [{key: row[key] for key in keys} for row in self.front],
        }


def collect(config: SweepConfig, folder: str, results: tune.ResultGrid) -> SweepResult:
    """The rows of all trials that reported, and the front, whose artifacts are copied to FOLDER/front."""
    rows: list[dict[str, Any]] = []
    for result in results:
        metrics = result.metrics or {}
        if "val_accuracy" not in metrics or result.checkpoint is None:
            continue
        keys = ("num_images", "iterations", "diverged", *config.objectives, "val_accuracy", "val_accuracy_std")
        rows.append(
            {key: metrics.get(key) for key in keys}
            | {"trial": metrics["trial_id"], "config": _settings(metrics), "error": str(result.error or "")}
            | {"checkpoint": result.checkpoint}
        )
    rows.sort(key=lambda row: -row["val_accuracy"])
    front = sorted(non_dominated(rows, config.objectives), key=lambda row: row["num_images"])
    for row in front:
        row["artifact"] = join(folder, "front", f"trial-{row['trial']}{SUFFIX}")
        with row["checkpoint"].as_directory() as checkpoint:
            save(load(os.path.join(checkpoint, BEST)), row["artifact"])
    for row in rows:
        del row["checkpoint"]
    write_json(join(folder, "front.json"), front)
    return SweepResult(config, folder, rows, front)


def _settings(metrics: dict[str, Any]) -> dict[str, Any]:
    """The searched settings of a trial's best set; of a population those of its best member."""
    config: dict[str, Any] = metrics["config"]
    member = metrics["members"][metrics.get("best_member", 0)] if "members" in metrics else {}
    return {name: member.get(name, value) for name, value in config.items()}
