"""The folders of trials whose driver was killed at the worst moments."""

import shutil
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.fs
import pytest
from ray import tune
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult

from raydistill.runs.run import Run
from raydistill.store.artifact import save
from raydistill.store.checkpoint import load_checkpoint, save_checkpoint
from raydistill.sweep.searching.trial import BEST
from raydistill.sweep.surviving.repair import ABANDONED, repair_trials


@pytest.fixture
def trial_folder(tmp_path, small, digits):
    """A trial with checkpoints 0, 1 and 2, after 2, 4 and 6 iterations."""
    run = Run(small, digits)
    for index in range(3):
        run.advance()
        checkpoint = tmp_path / "sweep" / "trial-a" / f"checkpoint_00000{index}"
        save_checkpoint(run.state_dict(), checkpoint)
        save(run.artifact(), str(checkpoint / BEST))
    return tmp_path / "sweep" / "trial-a"


def tune_trial(folder, *kept, finished=False):
    manager = _CheckpointManager(tune.CheckpointConfig(num_to_keep=2))
    for name in kept:
        checkpoint = tune.Checkpoint(str(folder / name), pa.fs.LocalFileSystem())
        manager.register_checkpoint(_TrainingResult(checkpoint, {}))
    return SimpleNamespace(
        storage=SimpleNamespace(trial_fs_path=str(folder)),
        run_metadata=SimpleNamespace(checkpoint_manager=manager),
        is_finished=lambda: finished,
    )


def done(checkpoint):
    return load_checkpoint(checkpoint)["distiller"]["iteration"]


def checkpoints(folder):
    return sorted(path.name[-1] for path in folder.glob("checkpoint_*"))


def test_a_checkpoint_that_was_deleted_is_replaced_by_a_newer_one(trial_folder):
    shutil.rmtree(trial_folder / "checkpoint_000000")
    repair_trials(
        str(trial_folder.parent), [tune_trial(trial_folder, "checkpoint_000000")], trial_folder.parents[1] / "staging"
    )
    assert checkpoints(trial_folder) == ["0"]
    assert done(trial_folder / "checkpoint_000000") == 6


@pytest.mark.parametrize("damage", ["checkpoint.pt", f"{BEST}/images.arrow", f"{BEST}/manifest.json"])
def test_only_whole_checkpoints_count(trial_folder, damage):
    shutil.rmtree(trial_folder / "checkpoint_000000")
    file = trial_folder / "checkpoint_000002" / damage
    file.write_bytes(file.read_bytes()[:-40])
    repair_trials(
        str(trial_folder.parent), [tune_trial(trial_folder, "checkpoint_000000")], trial_folder.parents[1] / "staging"
    )
    assert done(trial_folder / "checkpoint_000000") == 4


def test_a_whole_checkpoint_stays_and_later_ones_go(trial_folder):
    repair_trials(
        str(trial_folder.parent), [tune_trial(trial_folder, "checkpoint_000001")], trial_folder.parents[1] / "staging"
    )
    assert checkpoints(trial_folder) == ["0", "1"]
    assert done(trial_folder / "checkpoint_000001") == 4


def test_tune_can_delete_what_it_thinks_is_there(trial_folder):
    shutil.rmtree(trial_folder / "checkpoint_000000")
    shutil.rmtree(trial_folder / "checkpoint_000001")
    trial = tune_trial(trial_folder, "checkpoint_000000", "checkpoint_000001")
    repair_trials(str(trial_folder.parent), [trial], trial_folder.parents[1] / "staging")
    assert done(trial_folder / "checkpoint_000001") == 6
    for name in ("checkpoint_000002", "checkpoint_000003"):
        shutil.copytree(trial_folder / "checkpoint_000001", trial_folder / name)
        new = tune.Checkpoint(str(trial_folder / name), pa.fs.LocalFileSystem())
        trial.run_metadata.checkpoint_manager.register_checkpoint(_TrainingResult(new, {}))
    assert checkpoints(trial_folder) == ["2", "3"]


def test_a_trial_without_a_checkpoint_begins_clean_and_a_finished_one_stays(trial_folder):
    repair_trials(
        str(trial_folder.parent),
        [tune_trial(trial_folder, "checkpoint_000001", finished=True)],
        trial_folder.parents[1] / "staging",
    )
    assert checkpoints(trial_folder) == ["0", "1", "2"]
    repair_trials(str(trial_folder.parent), [tune_trial(trial_folder)], trial_folder.parents[1] / "staging")
    assert checkpoints(trial_folder) == []


def test_a_trial_that_tune_does_not_know_is_set_aside(trial_folder):
    staged = trial_folder.parents[1] / "staging" / "trial-a"
    staged.mkdir(parents=True)
    repair_trials(str(trial_folder.parent), [], staged.parent)
    assert not staged.exists()
    assert not trial_folder.exists()
    assert checkpoints(trial_folder.parent / ABANDONED / "trial-a") == ["0", "1", "2"]
