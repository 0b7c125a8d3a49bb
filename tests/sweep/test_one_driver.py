"""Sweeps of which two drivers want to be the one: begun together, or one suspended until another has taken over."""

import json
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch

import pyarrow.fs
import pytest
import yaml
from running import beginning
from small_sweep import wait_for

from raydistill.private_api.tune_trials import STATE_FILES
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.surviving.holder import FOLDER, newest
from raydistill.system.errors import UserError
from raydistill.system.storage import join, open_place, read_file

pytestmark = [pytest.mark.slow, pytest.mark.ray]

COMMAND = """
from raydistill.sweep.surviving import holder
holder.HEARTBEAT, holder.LEASE = 1.0, 6.0
from raydistill.sweep.reporting import index_writer
from raydistill.sweep.surviving import lease
assert index_writer.EVERY and lease.LEASE == holder.LEASE
index_writer.EVERY = 0.3
from raydistill.cli import main
main()
"""
ITERATIONS = 100  # some seconds
SWEEP = {
    "name": "t",
    "base": {
        "dataset": "digits",
        "choice.steps": 3,
        "batch_size": 32,
        "eval_every": 2,
        "device": "cpu",
        "val_nets": 1,
        "test_nets": 1,
    },
    "search": {"inner_lr": {"loguniform": [0.01, 0.3]}},
    "budget": {"trials": 2, "iterations": ITERATIONS, "concurrent": 1},
    "scheduler": "none",
}


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """A sweep's place; `sweep.yaml` in the test's folder describes the sweep."""
    storage = str(tmp_path / "runs") if request.param == "folder" else request.getfixturevalue("s3")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"storage": storage}))
    return join(storage, "t")


@pytest.fixture
def begin(tmp_path):
    """Begins `raydistill sweep` in a process of its own, which the test does not leave behind."""
    with beginning(cwd=tmp_path, stderr=subprocess.PIPE) as process:
        yield lambda *arguments: process(sys.executable, "-c", COMMAND, "sweep", *arguments, "--json")


def ended(process):
    """Its exit code, its last line and its errors."""
    out, errors = process.communicate(timeout=300)
    return process.returncode, out.strip().rpartition("\n")[2], errors


def running(place):
    """Whether a trial has a result, which is told at once."""
    try:
        return any(row.iterations for row in read_index(place).rows)
    except UserError:  # not there yet
        return False


def content(place):
    """Every file of a sweep but its lease."""
    filesystem, inside = open_place(place)
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(inside, recursive=True))
    files = [info.path for info in found if info.is_file and "/driver/" not in info.path]
    return {path: read_file(filesystem, path) for path in files}


def is_state_of_tune(path):
    """Whether it is one of Tune's own state files, which no resume reads: it takes state.zip."""
    return any(fnmatch(path.rpartition("/")[2], pattern) for pattern in STATE_FILES)


def test_of_two_begun_together_one_is_refused(place, begin):
    both = [begin("sweep.yaml"), begin("sweep.yaml")]
    (first, *_), (second, *_) = results = sorted(ended(process) for process in both)
    assert (first, second) == (0, 2), results
    assert json.loads(results[0][1])["trials"] == 2
    [line] = results[1][2].strip().splitlines()
    winner = next(process for process in both if process.returncode == 0)
    assert f"in use by process {winner.pid} on " in line
    assert "raydistill stop " in line
    assert "raydistill sweep --resume " in line
    assert [(row.status, row.iterations) for row in read_index(place).rows] == [("TERMINATED", ITERATIONS)] * 2


@pytest.mark.parametrize("wakes", ["while the other runs", "when the other has ended"])
def test_a_driver_that_was_suspended_past_its_lease_gives_way(place, begin, wakes):
    first = begin("sweep.yaml")
    wait_for(lambda: running(place), 300)
    first.send_signal(signal.SIGSTOP)
    second = begin("--resume", place)
    assert f"in use by process {first.pid} on " in (line := second.stdout.readline())
    assert " s if that one gives no sign of life" in line
    if wakes == "while the other runs":
        wait_for(lambda: newest(*open_place(join(place, FOLDER)))[0] == 2, 60)
        taken = time.time()
        wait_for(lambda: read_index(place).about.updated > taken, 120)  # by the other
    else:
        assert ended(second)[0] == 0
        before = content(place)
    first.send_signal(signal.SIGCONT)
    code, _, errors = ended(first)
    assert code == 2, errors
    assert f"{place}: was taken over by process {second.pid} on " in errors.splitlines()[-1]
    assert "Traceback" not in errors
    if wakes == "while the other runs":
        code, summary, errors = ended(second)
        assert code == 0, errors
        assert json.loads(summary)["trials"] == 2
    else:
        after = content(place)
        assert {path: after.get(path) for path in before} == before
        # An upload of Tune's that was under way when its driver was suspended continues, under names of its own.
        assert all(is_state_of_tune(path) for path in after.keys() - before.keys())
    assert [(row.status, row.iterations) for row in read_index(place).rows] == [("TERMINATED", ITERATIONS)] * 2
