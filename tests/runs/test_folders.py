"""A run's folder is its own: commands in processes of their own that begin at the same moment, or are killed."""

import json
import signal
import subprocess
import sys
import time

import pytest
from running import beginning

from raydistill.system.lock import LOCK

COMMAND = """
import time
time.strftime = lambda *_: "20260101-000000"  # all begin in the same second
from raydistill.cli import main
main()
"""
ENDLESS = [
    "dataset=digits",
    "iterations=1000000",
    "eval_every=1",
    "val_nets=1",
    "test_nets=1",
    "batch_size=16",
    "choice.steps=3",
]
BANK = ["dataset=digits", "nets=2", "chunk=2", "epochs=100000", "batch_size=256"]


@pytest.fixture
def begin(tmp_path):
    """Begins a command in a process of its own, which the test does not leave behind."""
    with beginning(cwd=tmp_path, stderr=subprocess.PIPE) as process:
        yield lambda *arguments: process(sys.executable, "-c", COMMAND, *arguments)


def sets(settings):
    return [part for setting in settings for part in ("--set", setting)]


def alone(processes):
    """The one that is left when the others were refused, each in a line that names it."""
    end = time.monotonic() + 240
    while sum(process.poll() is None for process in processes) > 1 and time.monotonic() < end:
        time.sleep(0.1)
    (winner,) = (process for process in processes if process.poll() is None)
    for process in processes:
        if process is not winner:
            refused(process, winner)
    return winner


def refused(process, by):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert f"in use by process {by.pid} on " in errors
    assert len(errors.strip().splitlines()) == 1


def until(process, word):
    return next(line for line in process.stdout if word in line)


@pytest.mark.slow
def test_each_of_several_runs_begun_at_once_has_a_folder(begin, tmp_path):
    settings = [setting.replace("iterations=1000000", "iterations=2") for setting in ENDLESS]
    processes = [begin("distill", *sets(settings), "--json") for _ in range(3)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    names = [f"runs/digits-lenet-20260101-000000{end}/best.distilled" for end in ("-2", "-3", "")]
    assert sorted(json.loads(out.splitlines()[-1])["artifact"] for out, _ in results) == names
    assert all((tmp_path / name / "manifest.json").exists() for name in names)


@pytest.mark.slow
def test_one_of_several_runs_has_the_folder_until_it_ends(begin, tmp_path):
    winner = alone([begin("distill", *sets(ENDLESS), "--out", "x") for _ in range(3)])
    until(winner, "/1000000")
    winner.send_signal(signal.SIGINT)
    winner.communicate(timeout=120)
    assert winner.returncode == 130
    assert (tmp_path / "x" / "best.distilled" / "manifest.json").exists()

    living = begin("distill", "--resume", "x")
    until(living, "/1000000")
    refused(begin("distill", "--resume", "x"), living)
    living.kill()
    living.communicate()
    assert (tmp_path / "x" / LOCK).exists()
    again = begin("distill", "--resume", "x")
    until(again, "/1000000")
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=120)
    assert again.returncode == 130
    assert not (tmp_path / "x" / LOCK).exists()


@pytest.mark.slow
def test_one_of_several_pretrains_has_the_folder_until_it_ends(begin):
    command = ["pretrain", *sets(BANK), "--out", "bank"]
    winner = alone([begin(*command) for _ in range(2)])
    until(winner, "epoch 3/")
    winner.kill()
    winner.communicate()
    again = begin(*command)
    first = until(again, "epoch ")
    again.send_signal(signal.SIGINT)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 130
    assert " of 100000 of networks 1 to 2; to resume:\n" in said
    assert said.endswith(f"raydistill {' '.join(command)}\n")
    assert int(first.split("epoch ")[1].split("/")[0]) > 3
