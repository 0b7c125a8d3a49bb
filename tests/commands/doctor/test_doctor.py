"""The command as a user types it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from raydistill.commands.doctor.finding import Finding
from raydistill.commands.doctor.show import print_findings


def doctor(*arguments, cwd):
    command = [sys.executable, "-m", "raydistill.cli", "doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def lines(output):
    """By name: state and words."""
    rows = [line.split(maxsplit=2) for line in output.splitlines() if "{" not in line]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without a cluster."""
    for name in ("RAY_ADDRESS", "RAYDISTILL_DATA", "RAYDISTILL_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
def test_a_machine_that_is_well(home):
    done = doctor("--json", cwd=home)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"]
    names = [check["name"] for check in result["checks"]]
    assert {"versions", "driver", "cpu", "threads", "compiler", "hypergradient cpu"} < set(names)
    assert names[-4:] == ["data", "storage", "token", "ray"]
    assert all(set(check) == {"name", "ok", "found", "todo"} for check in result["checks"])
    shown = lines(done.stdout)
    assert shown["ray"][0] == "ok"
    assert "one is started, on this machine alone: 1 node" in shown["ray"][1]
    assert f"{home}/runs: write, rename, read, delete" in shown["storage"][1]
    assert list(home.iterdir()) == []  # nothing is left


@pytest.mark.slow
def test_a_machine_that_is_not(home, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    (home / "file").write_text("in the way")
    begin = time.monotonic()
    done = doctor("--storage", home / "file" / "runs", "--data-dir", home / "[bold]none", cwd=home)
    assert time.monotonic() - begin < 90  # of which the limits are a part
    assert done.returncode == 1, done.stdout + done.stderr
    shown = lines(done.stdout)
    assert shown["ray"][0] == "fails"
    assert "RAY_ADDRESS=127.0.0.1:1: nobody answers" in shown["ray"][1]
    assert shown["storage"][0] == "fails"
    assert f"storage={home}/file/runs: cannot be written to" in shown["storage"][1]
    assert shown["data"] == (
        "fails",
        f"{home}/[bold]none: no such folder -> make it, or name another with --data-dir or RAYDISTILL_DATA",
    )
    assert shown["versions"][0] == "ok"
    assert "3 fails" in done.stdout


def test_ctrl_c_ends_all_of_it(home):
    command = [sys.executable, "-m", "raydistill.cli", "doctor"]
    with subprocess.Popen(command, cwd=home, stdout=-1, stderr=-2, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, _ = process.communicate(timeout=60)
    assert first.startswith("versions")
    assert process.returncode == 130, output
    assert "Traceback" not in output
    wait_until_gone(process.pid)


def wait_until_gone(session):
    """No process of a session is left."""
    end = time.monotonic() + 30
    while session in sessions():
        assert time.monotonic() < end
        time.sleep(0.2)


def sessions():
    """The processes of each session, zombies left out."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, *numbers = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                found.setdefault(int(numbers[2]), []).append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("width", [50, 120])
def test_a_narrow_terminal_keeps_the_columns(width):
    screen = io.StringIO()
    found = [
        Finding("data", True, "/data/[red]x: " + "mnist, " * 20, "do [/] this"),
        Finding("ray", False, "no answer"),
    ]
    console = Console(file=screen, force_terminal=True, color_system=None, width=width)
    assert print_findings(found, console) == found
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", screen.getvalue())  # what moves the cursor
    lines = [line.rstrip() for line in shown.replace("\r", "\n").split("\n") if line.strip() and "looking" not in line]
    assert lines[0].startswith("data                  note   /data/[red]x: mnist,")
    assert all(line.startswith(" " * 29) for line in lines[1:-2])
    assert lines[-2:] == ["ray                   fails  no answer", "1 note, 1 fails"]
    assert "do [/] this" in " ".join(" ".join(lines).split())
    assert all(len(line) <= width for line in lines)
