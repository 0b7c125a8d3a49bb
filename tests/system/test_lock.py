"""The lock of a run's folder, and how a new folder is named."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from raydistill.config.pretrain_config import PretrainConfig
from raydistill.runs.distillation import distill
from raydistill.runs.pretraining import pretrain
from raydistill.store.bank import read_manifest
from raydistill.system.errors import UserError
from raydistill.system.lock import LOCK, is_empty, new_folder, own_folder

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from raydistill.system.lock import own_folder

with own_folder(Path(sys.argv[1])):
    {then}
    time.sleep(600)
"""


def holder(folder, then="print('here', flush=True)"):
    """A process that works in a folder, and the line that it or its child prints."""
    command = [sys.executable, "-c", HOLD.format(then=then), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline()


def kill(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_at_a_time_and_who(tmp_path):
    with own_folder(tmp_path):
        assert is_empty(tmp_path)
        assert (tmp_path / LOCK).exists()
        who = rf"in use by process {os.getpid()} on .* since 20..-..-.. .*; wait for its end, or stop it"
        with pytest.raises(UserError, match=who), own_folder(tmp_path):  # not even this process once more
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    process, _ = holder(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {process.pid} on "), own_folder(tmp_path):
        pass
    kill(process)
    assert (tmp_path / LOCK).exists()
    with own_folder(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


FORKED = "os.fork() or (print(os.getpid(), flush=True), time.sleep(600))"
BEGUN = "print(subprocess.Popen(['sleep', '600'], close_fds=False).pid, flush=True)"


@pytest.mark.parametrize("then", [FORKED, BEGUN])
def test_children_that_outlive_it_do_not_hold_the_lock(tmp_path, then):
    process, child = holder(tmp_path, then)
    try:
        with pytest.raises(UserError, match="in use"), own_folder(tmp_path):
            pass
        kill(process)
        os.kill(int(child), 0)  # lives
        with own_folder(tmp_path):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


ENDED = "child = os.fork() or sys.exit(); print(os.waitpid(child, 0), flush=True)"


def test_a_child_that_ends_leaves_its_parents_lock(tmp_path):
    process, _ = holder(tmp_path, ENDED)
    try:
        with pytest.raises(UserError, match=f"in use by process {process.pid} on "), own_folder(tmp_path):
            pass
    finally:
        kill(process)


@pytest.mark.parametrize("third", [False, True])
def test_a_holder_ends_just_when_another_has_opened_its_lock_file(tmp_path, monkeypatch, third):
    """It takes the file away, and the folder: the other must not be content with a lock on a deleted file."""
    flock, folder = fcntl.flock, tmp_path / "a"
    with ExitStack() as first, ExitStack() as next_one:
        first.enter_context(own_folder(folder))

        def late(handle, how):
            monkeypatch.setattr("fcntl.flock", flock)
            first.close()
            if third:
                next_one.enter_context(own_folder(folder))
            flock(handle, how)

        monkeypatch.setattr("fcntl.flock", late)
        if not third:
            next_one.enter_context(own_folder(folder))
        with pytest.raises(UserError, match="in use"), own_folder(folder):
            pass
        assert (folder / LOCK).exists()


def test_folders_with_nothing_in_them_are_taken_away(tmp_path):
    with own_folder(tmp_path / "a" / "b"):
        pass
    with new_folder(tmp_path / "c" / "d"):
        pass
    assert list(tmp_path.iterdir()) == []
    with own_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "x").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_name_for_each(tmp_path):
    together = threading.Barrier(8)

    def make(_):
        together.wait()
        with new_folder(tmp_path / "runs" / "name") as folder:
            together.wait()
            return folder.name

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == ["name", *(f"name-{i}" for i in range(2, 9))]


def test_what_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file.*: is no folder to work in: "), own_folder(place):
            pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with caplog.at_level(logging.WARNING), own_folder(tmp_path):
        assert "no locks here ([Errno 38] Function not implemented)" in caplog.text


def test_python_users_have_it_too(small, digits, tmp_path):
    with own_folder(tmp_path):
        for resume in (False, True):
            with pytest.raises(UserError, match="in use by"):
                distill(None if resume else small, out=tmp_path, resume=resume, data=digits)
        with pytest.raises(UserError, match="in use by"):
            pretrain(PretrainConfig(), tmp_path, data=digits)
    (tmp_path / LOCK).write_text("process 1 on host since 1970")
    distill(small, out=tmp_path, data=digits)
    assert not (tmp_path / LOCK).exists()
    with pytest.raises(UserError, match="is not an empty folder"):
        distill(small, out=tmp_path, data=digits)


def test_a_whole_bank_is_only_read(digits, tmp_path):
    config = PretrainConfig(nets=1, chunk=1, epochs=1)
    pretrain(config, tmp_path, data=digits)
    with own_folder(tmp_path):  # as one of many jobs that begin with the same pretrain
        assert pretrain(config, tmp_path, data=digits) == read_manifest(tmp_path)[0]
