"""A sweep's state on disk after its driver was killed at the worst moments."""

import json
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager

from raydistill.sweep.surviving import tune_state as state_module
from raydistill.sweep.surviving.lease import leased
from raydistill.sweep.surviving.tune_state import STATE, Bookkeeper, begun, pack, put_back, tune_state_amended
from raydistill.system.errors import UserError


def write_state(folder, session, trials):
    """Tune's files of one moment."""
    folder.mkdir(exist_ok=True)
    (folder / f"experiment_state-{session}.json").write_text(json.dumps(trials))
    (folder / f"search_gen_state-{session}.json").write_text("{}")
    (folder / f"searcher-state-{session}.pkl").write_bytes(f"knows {trials}".encode())
    (folder / "tuner.pkl").write_bytes(b"of the begin")


KINDS = ("experiment_state", "search_gen_state", "searcher-state")


def state(folder):
    """Of each kind of Tune's files the newest, by name, as Tune chooses."""
    return {kind: max(Path(folder).glob(f"{kind}-*")).read_bytes() for kind in KINDS}


def trials_of(folder):
    return json.loads(state(folder)["experiment_state"])


@pytest.fixture
def lease(tmp_path):
    with leased(str(tmp_path / "of-a-driver")) as held:
        yield held


@pytest.fixture
def staged(tmp_path, monkeypatch, lease):
    """A sweep whose driver staged its second state, and the folder in storage, which has the first as yet."""
    monkeypatch.setattr(state_module, "LOOK", 0.0)
    staging, folder = tmp_path / "staging", tmp_path / "sweep"
    write_state(folder, "1", ["a"])
    write_state(staging, "1", ["a", "b"])
    storage = SimpleNamespace(experiment_driver_staging_path=str(staging), trial_fs_path=str(folder / "trial-a"))
    trial = SimpleNamespace(storage=storage, is_finished=lambda: True)
    keeper = Bookkeeper(str(folder), lease)
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
    assert trials_of(folder) == ["a", "b", "c"]
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


def test_checkpoints_do_not_have_tune_write_its_state(lease):
    def forced():
        manager = _ExperimentCheckpointManager(storage=None, checkpoint_period="auto", sync_every_n_trial_checkpoints=2)
        for _ in range(2):
            manager.on_trial_checkpoint("a trial")
        return manager._should_force_sync_up

    with tune_state_amended(lease):
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
    assert trials_of(folder) == ["a", "b", "c"]


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
    assert trials_of(unpacked(tmp_path / "t", pack(tmp_path / "s"))) == ["new"]
    assert len(list((tmp_path / "t").glob("*-*"))) == 3


def unpacked(folder, packed):
    """A sweep's folder after a resume from this copy."""
    folder.mkdir()
    (folder / STATE).write_bytes(packed)
    put_back(str(folder))
    return folder


def test_what_a_driver_could_not_copy_any_more_is_not_mixed_with_the_copy(staged):
    """It lies in that host's files for the storage, to which Tune adds the storage's, and takes the newest of each."""
    *_, staging, folder = staged
    write_state(staging, "2026-01-01_00-00-00", ["a", "b", "c"])  # a second driver's, killed before it could
    put_back(str(folder))
    shutil.copytree(folder, staging, dirs_exist_ok=True)
    assert trials_of(staging) == ["a", "b"]
    assert state(staging) == state(folder)


def test_a_copy_from_a_host_whose_clock_is_ahead(tmp_path):
    write_state(tmp_path / "s", "2199-01-01_00-00-00", ["a"])
    staging = unpacked(tmp_path / "t", pack(tmp_path / "s"))
    write_state(staging, (datetime.now() + timedelta(seconds=1)).strftime("%Y-%m-%d_%H-%M-%S"), ["a", "b"])
    assert trials_of(unpacked(tmp_path / "u", pack(staging))) == ["a", "b"]
