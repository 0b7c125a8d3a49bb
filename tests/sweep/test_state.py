"""A sweep's state on disk after its driver was killed at the worst moments."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.fs
import pytest
from ray import tune
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager

from raydistill.artifact import save
from raydistill.errors import UserError
from raydistill.run import Run, load_checkpoint, save_checkpoint
from raydistill.storage import open_place, replace_file
from raydistill.sweep import state as state_module
from raydistill.sweep.state import ABANDONED, STATE, Bookkeeper, begun, mend, pack, put_back, written_now_and_then
from raydistill.sweep.trainable import BEST


def write_state(folder, session, trials):
    """Tune's files of one moment."""
    folder.mkdir(exist_ok=True)
    (folder / f"experiment_state-{session}.json").write_text(json.dumps(trials))
    (folder / f"search_gen_state-{session}.json").write_text("{}")
    (folder / f"searcher-state-{session}.pkl").write_bytes(f"knows {trials}".encode())
    (folder / "tuner.pkl").write_bytes(b"of the begin")


def state(folder):
    return {p.name: p.read_bytes() for p in Path(folder).glob("*") if p.is_file() and "state-" in p.name}


@pytest.fixture
def staged(tmp_path, monkeypatch):
    """A sweep whose driver staged its second state, and the folder in storage, which has the first as yet."""
    monkeypatch.setattr(state_module, "LOOK", 0.0)
    staging, folder = tmp_path / "staging", tmp_path / "sweep"
    write_state(folder, "1", ["a"])
    write_state(staging, "1", ["a", "b"])
    storage = SimpleNamespace(experiment_driver_staging_path=str(staging), trial_fs_path=str(folder / "trial-a"))
    trial = SimpleNamespace(storage=storage, is_finished=lambda: True)
    keeper = Bookkeeper(str(folder))
    keeper.on_step_begin(iteration=1, trials=[], more="of Ray's")
    keeper.on_step_begin(iteration=2, trials=[trial])
    return keeper, trial, staging, folder


def test_files_torn_by_the_end_of_the_driver_are_put_back_whole(staged):
    *_, staging, folder = staged
    (folder / "experiment_state-1.json").write_text('["a", "b')
    (folder / "searcher-state-1.pkl").unlink()
    write_state(folder, "2", ["later", "and torn"])  # of a second driver that had staged nothing whole
    put_back(str(folder))
    assert state(folder) == state(staging)
    assert (folder / "tuner.pkl").read_bytes() == b"of the begin"


def test_what_tune_writes_last_is_copied_too(staged):
    """Else a stopped sweep would go on from before its last checkpoints."""
    keeper, trial, staging, folder = staged
    write_state(staging, "1", ["a", "b", "and the steps that the stop waited for"])
    keeper.on_experiment_end(trials=[trial], more="of Ray's")
    put_back(str(folder))
    assert state(folder) == state(staging)
    keeper.on_experiment_end(trials=[])  # a sweep that ended before its first trial


def test_the_state_is_copied_when_it_is_new_and_only_then(staged):
    keeper, trial, staging, folder = staged
    first = (folder / STATE).stat().st_mtime_ns
    keeper.on_step_begin(iteration=3, trials=[trial])
    assert (folder / STATE).stat().st_mtime_ns == first
    write_state(staging, "1", ["a", "b", "c"])
    keeper.on_step_begin(iteration=4, trials=[trial])
    put_back(str(folder))
    assert json.loads((folder / "experiment_state-1.json").read_text()) == ["a", "b", "c"]
    assert not list(folder.glob("*.partial*"))


def test_it_looks_for_a_new_state_now_and_then_only(staged, monkeypatch):
    """Thousands of trials' folders lie beside it, and Ray asks thousands of times a second."""
    keeper, trial, staging, folder = staged
    monkeypatch.setattr(state_module, "LOOK", 100.0)
    keeper.on_step_begin(iteration=3, trials=[trial])
    write_state(staging, "1", ["a", "b", "c"])
    before = (folder / STATE).read_bytes()
    keeper.on_step_begin(iteration=4, trials=[trial])
    assert (folder / STATE).read_bytes() == before
    keeper.on_experiment_end(trials=[trial])
    assert (folder / STATE).read_bytes() != before


def test_checkpoints_do_not_have_tune_write_its_state():
    def forced():
        manager = _ExperimentCheckpointManager(storage=None, checkpoint_period="auto", sync_every_n_trial_checkpoints=2)
        for _ in range(2):
            manager.on_trial_checkpoint("a trial")
        return manager._should_force_sync_up

    with written_now_and_then():
        assert not forced()
    assert forced()


def test_a_store_that_cannot_be_written_for_a_while_is_waited_for(staged, monkeypatch):
    keeper, trial, staging, folder = staged
    folder.rename(folder.parent / "away")
    write_state(staging, "1", ["a", "b", "c"])
    monkeypatch.setattr(state_module, "AWAY", 0.5)
    keeper.on_step_begin(iteration=3, trials=[trial])
    (folder.parent / "away").rename(folder)
    before = (folder / STATE).read_bytes()
    keeper.on_step_begin(iteration=4, trials=[trial])
    assert (folder / STATE).read_bytes() == before  # not yet: each try may take long
    time.sleep(0.5)
    keeper.on_step_begin(iteration=5, trials=[trial])  # the same state, once more
    put_back(str(folder))
    assert json.loads((folder / "experiment_state-1.json").read_text()) == ["a", "b", "c"]


def test_begun(staged, tmp_path):
    assert begun(str(staged[-1]))
    write_state(tmp_path / "early", "1", ["a"])  # by Tune, which may have been cut off between two files
    assert not begun(str(tmp_path / "early"))
    assert not begun(str(tmp_path / "nowhere"))


def test_a_damaged_copy_is_said(staged):
    folder = staged[-1]
    (folder / STATE).write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"state\.zip: cannot be read"):
        put_back(str(folder))


def test_a_copy_that_names_other_files_writes_none_of_them(staged, tmp_path):
    import zipfile

    folder = staged[-1]
    with zipfile.ZipFile(folder / STATE, "a") as archive:
        archive.writestr("../experiment_state-9.json", "out")
        archive.writestr("tuner.pkl", "bad")
    put_back(str(folder))
    assert not (tmp_path / "experiment_state-9.json").exists()
    assert (folder / "tuner.pkl").read_bytes() == b"of the begin"


def test_pack_takes_the_newest_session(tmp_path):
    write_state(tmp_path / "s", "1", ["old"])
    write_state(tmp_path / "s", "2", ["new"])
    filesystem, inside = open_place(tmp_path / "t" / STATE)
    filesystem.create_dir(str(tmp_path / "t"))
    replace_file(filesystem, inside, pack(tmp_path / "s"))
    put_back(str(tmp_path / "t"))
    assert sorted(state(tmp_path / "t")) == [f"{name}-2.{end}" for name, end in ENDS]


ENDS = [("experiment_state", "json"), ("search_gen_state", "json"), ("searcher-state", "pkl")]


@pytest.fixture
def trial_folder(tmp_path, small, digits):
    """A trial with checkpoints 0, 1 and 2, after 2, 4 and 6 iterations."""
    run = Run(small, digits)
    for index in range(3):
        run.advance()
        checkpoint = tmp_path / "sweep" / "trial-a" / f"checkpoint_00000{index}"
        save_checkpoint(run, checkpoint)
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
    mend(str(trial_folder.parent), [tune_trial(trial_folder, "checkpoint_000000")], trial_folder.parents[1] / "staging")
    assert checkpoints(trial_folder) == ["0"]
    assert done(trial_folder / "checkpoint_000000") == 6


@pytest.mark.parametrize("damage", ["checkpoint.pt", f"{BEST}/images.arrow", f"{BEST}/manifest.json"])
def test_only_whole_checkpoints_count(trial_folder, damage):
    shutil.rmtree(trial_folder / "checkpoint_000000")
    file = trial_folder / "checkpoint_000002" / damage
    file.write_bytes(file.read_bytes()[:-40])
    mend(str(trial_folder.parent), [tune_trial(trial_folder, "checkpoint_000000")], trial_folder.parents[1] / "staging")
    assert done(trial_folder / "checkpoint_000000") == 4


def test_a_whole_checkpoint_stays_and_later_ones_go(trial_folder):
    mend(str(trial_folder.parent), [tune_trial(trial_folder, "checkpoint_000001")], trial_folder.parents[1] / "staging")
    assert checkpoints(trial_folder) == ["0", "1"]
    assert done(trial_folder / "checkpoint_000001") == 4


def test_tune_can_delete_what_it_thinks_is_there(trial_folder):
    shutil.rmtree(trial_folder / "checkpoint_000000")
    shutil.rmtree(trial_folder / "checkpoint_000001")
    trial = tune_trial(trial_folder, "checkpoint_000000", "checkpoint_000001")
    mend(str(trial_folder.parent), [trial], trial_folder.parents[1] / "staging")
    assert done(trial_folder / "checkpoint_000001") == 6
    for name in ("checkpoint_000002", "checkpoint_000003"):
        shutil.copytree(trial_folder / "checkpoint_000001", trial_folder / name)
        new = tune.Checkpoint(str(trial_folder / name), pa.fs.LocalFileSystem())
        trial.run_metadata.checkpoint_manager.register_checkpoint(_TrainingResult(new, {}))
    assert checkpoints(trial_folder) == ["2", "3"]


def test_a_trial_without_a_checkpoint_begins_clean_and_a_finished_one_stays(trial_folder):
    mend(
        str(trial_folder.parent),
        [tune_trial(trial_folder, "checkpoint_000001", finished=True)],
        trial_folder.parents[1] / "staging",
    )
    assert checkpoints(trial_folder) == ["0", "1", "2"]
    mend(str(trial_folder.parent), [tune_trial(trial_folder)], trial_folder.parents[1] / "staging")
    assert checkpoints(trial_folder) == []


def test_a_trial_that_tune_does_not_know_is_set_aside(trial_folder):
    staged = trial_folder.parents[1] / "staging" / "trial-a"
    staged.mkdir(parents=True)
    mend(str(trial_folder.parent), [], staged.parent)
    assert not staged.exists()
    assert not trial_folder.exists()
    assert checkpoints(trial_folder.parent / ABANDONED / "trial-a") == ["0", "1", "2"]
