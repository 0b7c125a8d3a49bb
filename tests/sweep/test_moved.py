"""Sweeps that go on where they are now: moved, renamed, or reached by another path or address."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest
from line import Line
from small_sweep import sweep_config

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import sweep_values
from raydistill.store.artifact import load
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.reporting.status import stop
from raydistill.system.errors import UserError
from raydistill.system.storage import join, names, open_place

TRIALS, ITERATIONS = 3, 100


@pytest.fixture
def begun(local_ray, digits, monkeypatch):
    """Begins a sweep in a storage, and stops it in its first trial; returns its place."""
    monkeypatch.setattr(
        "raydistill.sweep.reporting.index_writer.EVERY", 0.3
    )  # seconds; else several trials would be through
    monkeypatch.setattr("raydistill.sweep.reporting.storage_writer.LOOK", 0.3)

    def begin(storage):
        budget = {"trials": TRIALS, "iterations": ITERATIONS, "concurrent": 1}
        config = sweep_config(storage, budget=budget, scheduler="none")
        place = join(storage, "t")

        def when_running():
            end = time.monotonic() + 100
            while time.monotonic() < end:
                with suppress(UserError):  # not there yet
                    if any(row.iterations for row in read_index(place).rows):
                        break
                time.sleep(0.2)
            stop(place, 0)

        thread = threading.Thread(target=when_running)
        thread.start()
        assert run_sweep(config, data=digits).stopped
        thread.join()
        assert len(names(*open_place(place), "trial-*")) < TRIALS
        return place

    return begin


def go_on(place, digits):
    """Resumes as the command does, and looks at all that there is then."""
    result = run_sweep(validated(SweepConfig, sweep_values(place)), resume=True, data=digits)
    assert (len(result.trials), result.failed) == (TRIALS, 0)
    index = read_index(place)
    assert [(row.status, row.iterations) for row in index.rows] == [("TERMINATED", ITERATIONS)] * TRIALS
    filesystem, inside = open_place(place)
    for row in index.rows:
        there = names(filesystem, f"{inside}/trial-{row.trial}")
        assert any(name.startswith("events.out") for name in there)  # its log came here too
        assert any(name.startswith("checkpoint_") for name in there)
        assert load(row.artifact).provenance["trial"] == row.trial
    return result


def test_a_folder_that_was_moved(begun, digits, tmp_path, monkeypatch):
    """And renamed, after it was begun by a relative path; nothing of the old one comes back."""
    monkeypatch.chdir(tmp_path)
    place = Path(begun("runs"))
    (tmp_path / "elsewhere").mkdir()
    place.rename("elsewhere/u")
    Path("runs").rmdir()
    monkeypatch.chdir("/")
    result = go_on(str(tmp_path / "elsewhere" / "u"), digits)
    assert result.config.name == "u"
    assert os.listdir(tmp_path) == ["elsewhere"]


def test_a_folder_behind_a_link_that_was_set_anew(begun, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("disk").mkdir()
    Path("link").symlink_to("disk")
    begun(str(tmp_path / "link"))
    Path("disk").rename("other")
    Path("link").unlink()
    Path("new").symlink_to("other")
    go_on("new/t", digits)
    assert sorted(os.listdir(tmp_path)) == ["new", "other"]


def test_a_place_in_a_store_that_was_moved(begun, digits, s3, s3_server):
    """And is reached by another address: that by which it was begun leads nowhere any more."""
    line = Line(s3_server)
    begun(line.through(s3))
    line.there = False
    filesystem, old = open_place(s3)
    new = join(s3.replace("/exp?", "/moved?"), "u")
    pa.fs.copy_files(f"{old}/t", open_place(new)[1], source_filesystem=filesystem, destination_filesystem=filesystem)
    filesystem.delete_dir(old)
    go_on(new, digits)
    assert names(filesystem, old) == []
    line.shutdown()
    line.server_close()
