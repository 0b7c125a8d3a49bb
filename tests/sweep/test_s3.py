"""A real sweep whose everything lies behind the S3 protocol."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

import optuna
import pyarrow as pa
import pyarrow.fs
import pytest
import yaml
from line import Line
from optuna.storages.journal import JournalFileBackend
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.store.artifact import load
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.reporting.journal import JOURNAL
from raydistill.sweep.reporting.status import read_status
from raydistill.system.errors import UserError
from raydistill.system.storage import join, open_place

pytestmark = [pytest.mark.slow, pytest.mark.ray]
SWEEP = {
    "name": "t",
    "base": {"dataset": "digits", "batch_size": 32, "eval_every": 2, "device": "cpu", "choice.steps": 3},
    "search": {"steps": {"int": [1, 2]}, "inner_lr": {"loguniform": [0.01, 0.3]}},
    "known_good": [{"steps": 1, "inner_lr": 0.1}, {"steps": 2, "inner_lr": 0.1}],
    "budget": {"trials": 3, "iterations": 100, "concurrent": 1},
    "scheduler": "none",
}


def test_a_sweep_killed_and_resumed_in_an_object_store(s3, local_ray, tmp_path, tmp_path_factory, monkeypatch, caplog):
    place = join(s3, "t")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"storage": s3}))
    command = [sys.executable, "-m", "raydistill.cli", "sweep", "sweep.yaml"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    second = _when(place, lambda rows: sum(row.iterations is not None for row in rows) >= 2, driver)
    assert load(second[0].artifact).provenance["trial"] == second[0].trial  # an address of the running sweep
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert read_status(place).state == "running"  # not silent for long enough yet

    drafts = tmp_path_factory.mktemp("drafts")  # where a log is written that lies in an object store
    monkeypatch.setattr(tempfile, "tempdir", str(drafts))
    done = _run("sweep", place, "--resume", "--json")
    assert not list(drafts.glob("raydistill-board-*"))
    summary = json.loads(done.splitlines()[-1])
    assert summary["trials"] == 3
    rows = read_index(place).rows
    assert Counter(row.status for row in rows) == {"TERMINATED": 3}
    assert {row.iterations for row in rows} == {100}
    assert {second[0].trial} < {row.trial for row in rows}
    for row in rows:
        artifact = load(row.artifact)
        assert artifact.provenance["trial"] == row.trial
        assert artifact.metrics["val_accuracy"] == row.val_accuracy
    assert {row["artifact"] for row in summary["front"]} <= {row.artifact for row in rows}

    tested = _run("evaluate", summary["front"][0]["artifact"], "--nets", "1", "--json")
    assert json.loads(tested.splitlines()[-1])["num_images"] == summary["front"][0]["num_images"]
    _check_files(place, tmp_path, {row.trial for row in rows})
    assert sorted(os.listdir(tmp_path)) == ["copy", "sweep.yaml"]  # nothing was left in the working directory
    assert "tensorboard --logdir s3://" in done
    assert not [record for record in caplog.records if "cannot be written" in record.message]


def test_a_store_that_goes_away_ends_the_sweep_which_goes_on_when_it_is_back(s3, s3_server, tmp_path):
    line = Line(s3_server)
    storage = line.through(s3)
    place = join(storage, "t")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"storage": storage}))
    command = [sys.executable, "-m", "raydistill.cli", "sweep", "sweep.yaml"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    _when(place, lambda rows: any(row.iterations for row in rows), driver)
    line.there = False
    out, err = driver.communicate(timeout=400)
    assert driver.returncode == 2, err
    assert "the storage cannot be reached" in err.splitlines()[-1]
    assert f"raydistill sweep --resume '{place}'" in err.splitlines()[-1]
    assert "Traceback" not in out + err

    line.there = True
    done = _run("sweep", place, "--resume", "--json")
    assert json.loads(done.splitlines()[-1])["trials"] == 3
    rows = read_index(place).rows
    assert [(row.status, row.iterations) for row in rows] == [("TERMINATED", 100)] * 3, done
    line.shutdown()
    line.server_close()


def _run(*arguments):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def _when(place, enough, driver):
    """The index's rows as soon as they are enough."""
    deadline = time.time() + 400
    while time.time() < deadline:
        assert driver.poll() is None
        try:
            rows = read_index(place).rows
        except UserError:  # not there yet
            rows = []
        if enough(rows):
            return rows
        time.sleep(0.5)
    raise AssertionError("the sweep did not come so far")


def _check_files(place, folder, trials):
    """Logs, journal and checkpoints, as a copy of the sweep's folder shows them."""
    filesystem, inside = open_place(place)
    (folder / "copy").mkdir()
    pa.fs.copy_files(inside, str(folder / "copy"), source_filesystem=filesystem)
    for trial in trials:
        events = EventAccumulator(str(folder / "copy" / f"trial-{trial}"))
        events.Reload()
        assert max(event.step for event in events.Scalars("val_accuracy")) == 100
        assert len(list((folder / "copy" / f"trial-{trial}").glob("checkpoint_*"))) == 1  # of a finished trial
    assert {path.name for path in (folder / "copy").glob("*.png")} == {"best.png", "front.png"}
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "copy" / JOURNAL)))
    told = optuna.load_study(study_name="t", storage=storage).trials
    assert {trial.user_attrs["trial"] for trial in told} == trials
    assert {trial.state.name for trial in told} == {"COMPLETE"}
