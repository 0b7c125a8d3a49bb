"""The final test of a sweep's front, on the cluster, with the resources of a trial for each set."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from raydistill.config.sweep_sections import Resources
from raydistill.runs.run import Run
from raydistill.store.artifact import SUFFIX, Artifact, load, save
from raydistill.store.checkpoint import load_checkpoint
from raydistill.sweep.error_reasons import explain
from raydistill.sweep.searching.trial import BEST
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.sweep.surviving.holder import HEARTBEAT
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.gpu_memory import enough_gpu_memory
from raydistill.system.storage import join

logger = logging.getLogger("raydistill")


def tested_front(
    front: Sequence[TrialRow],
    folder: str,
    kept: Mapping[str, tune.Result],
    inputs: TrialInputs,
    places: Resources,
    check: Callable[[], None],
) -> tuple[list[TrialRow], dict[str, Artifact]]:
    """Test the sets of the front, write them to FOLDER/front, and return the front's rows and its artifacts by trial.

    The process that tests a set downloads its checkpoint, and sends the set to the driver, which downloads nothing.
    A set that cannot be tested is written too, its row has the reason, and `--resume` tests the whole front again.

    Args:
        front: the rows, whose artifacts are those of the newest checkpoints.
        folder: the sweep's.
        kept: for each trial what Tune kept of it, with its newest checkpoint.
        inputs: what all trials share.
        places: what a test occupies.
        check: is called before anything is written; raises where the sweep is another driver's.
    """
    task: Any = ray.remote(num_cpus=places.cpu, num_gpus=places.gpu)(final_test)
    given = ray.put(inputs)
    tests = [task.remote(kept[row.trial].config, kept[row.trial].checkpoint, given) for row in front]
    rows, artifacts = [], {}
    for row, test in zip(front, tests, strict=True):
        while not ray.wait([test], timeout=HEARTBEAT)[0]:
            check()
        check()
        results, error = {}, ""
        try:
            results, artifact = ray.get(test)
        except RayError as raised:
            error = explain(str(raised))
            logger.warning("trial %s of the front is not tested: %s", row.trial, error)
            artifact = load(str(row.artifact))
        artifact = replace(artifact, metrics={**artifact.metrics, **results})
        place = join(folder, "front", f"trial-{row.trial}{SUFFIX}")
        save(artifact, place)
        artifacts[row.trial] = artifact
        rows.append(replace(row, artifact=place, tested=results, test_error=error))
    return rows, artifacts


def final_test(
    searched: dict[str, Any], checkpoint: tune.Checkpoint, inputs: TrialInputs
) -> tuple[dict[str, float | int], Artifact]:
    """Test the best set of a trial's checkpoint, on any node, as the end of `raydistill distill` does.

    Args:
        searched: the searched settings of the trial.
        checkpoint: its newest one.
        inputs: what all trials share.

    Returns:
        what the test measured, and the set with the recipe that was chosen for it.
    """
    config = inputs.config_with(searched, workers=1)
    device = inputs.begin_process(config.device)
    with enough_gpu_memory(inputs.gpus), checkpoint.as_directory() as folder:
        run = Run(config, inputs.load_data(), inputs.load_bank(), device=device)
        run.load_state_dict(load_checkpoint(folder))
        results = run.test()
        kept = load(os.path.join(folder, BEST))
        assert run.baseline_recipe is not None
        about = kept.provenance | {"baseline_recipe": run.baseline_recipe.model_dump(mode="json")}
        return results, replace(kept, recipe=run.recipe, provenance=about)
