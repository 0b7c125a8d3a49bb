"""The result of a sweep: its trials, and its Pareto front with tested artifacts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ray import tune

from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_sections import Resources
from raydistill.store.artifact import Artifact
from raydistill.sweep.reporting.final_test import tested_front
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.sweep.stopping.pareto import non_dominated
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.storage import join, write_json


@dataclass(frozen=True)
class SweepResult:
    """A finished or stopped sweep: a row for each trial that was validated, the most accurate first, and the front.

    The front is the trials that no other beats in all objectives, the smallest set first. `artifact` of such a row lies
    in FOLDER/front, `tested` holds its test accuracy and that of as many random real images, or `test_error` the reason
    why it could not be tested.
    """

    config: SweepConfig
    folder: str
    trials: list[TrialRow]
    front: list[TrialRow]
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    """The sets of the front, by trial, as they were written to FOLDER/front."""
    stopped: bool = False
    """Whether somebody stopped it before its end; `--resume` continues it."""
    failed: int = 0
    """How many trials were given up; `--resume` tries them again."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for scripts: name, storage, trials, how many failed and the front."""
        return {
            "name": self.config.name,
            "storage": self.folder,
            "trials": len(self.trials),
            "failed": self.failed,
            "stopped": self.stopped,
            "front": [
                {
                    "trial": row.trial,
                    "val_accuracy": row.val_accuracy,
                    "test_accuracy": row.tested.get("test_accuracy"),
                    "baseline_same_steps": row.tested.get("baseline_same_steps"),
                    "baseline_best_recipe": row.tested.get("baseline_best_recipe"),
                    **(_how(self.artifacts[row.trial]) if row.trial in self.artifacts else {}),
                    "num_images": row.num_images,
                    "artifact": row.artifact,
                    "config": dict(row.config),
                }
                for row in self.front
            ],
        }


def _how(artifact: Artifact) -> dict[str, Any]:
    """Return the recipe and the network of a set, as plain values."""
    network = artifact.config.network
    return {
        "recipe": artifact.recipe.model_dump(mode="json"),
        "network": {"name": network.name, **network.about()},
    }


def collect(
    config: SweepConfig,
    folder: str,
    rows: Sequence[TrialRow],
    results: tune.ResultGrid,
    inputs: TrialInputs,
    places: Resources,
    check: Callable[[], None] = lambda: None,
) -> SweepResult:
    """Test the front's sets, write them and `front.json` to the sweep's folder, and return the result.

    Args:
        config: the sweep.
        folder: its folder or address.
        rows: of all trials.
        results: what Tune kept of them.
        inputs: what all trials share.
        places: what a trial occupied.
        check: is called before anything is written; raises where the sweep is another driver's.
    """
    # A trial that failed in a reused process may have the metrics of the trial before it, and no checkpoint.
    kept = {str((result.metrics or {}).get("trial_id")): result for result in results if result.checkpoint is not None}
    validated = [
        replace(row, error=str(kept[row.trial].error or ""))
        for row in rows
        if row.trial in kept and row.val_accuracy is not None
    ]
    validated.sort(key=lambda row: -(row.val_accuracy or 0.0))
    front, artifacts = tested_front(non_dominated(validated, config.objectives), folder, kept, inputs, places, check)
    write_json(join(folder, "front.json"), [front_entry(row, config.objectives) for row in front])
    of_front = {row.trial: row for row in front}
    trials = [of_front.get(row.trial, row) for row in validated]
    return SweepResult(config, folder, trials, front, artifacts, failed=results.num_errors)


def front_entry(row: TrialRow, objectives: Mapping[str, str]) -> dict[str, Any]:
    """Return what `front.json` holds of a row: the objectives, what is known of the trial, and its final test."""
    names = ("num_images", "iterations", "diverged", *objectives, "val_accuracy", "val_accuracy_std")
    entry = {name: getattr(row, name) for name in (*names, "trial", "config", "error", "artifact")}
    return entry | dict(row.tested) | ({"test_error": row.test_error} if row.test_error else {})
