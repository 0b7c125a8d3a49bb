"""Checks that crash, hang or raise are lines like any other, and the others are done all the same."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydistill.commands.doctor.examine import Check, examine, one_after_the_other
from raydistill.commands.doctor.finding import Finding, Options


def sick(*names, limit=60.0):
    return [Check(name, "sick_checks", limit, "wait no longer") for name in names]


def test_what_goes_wrong_is_one_line_each():
    checks = sick("health", "an_error", "a_crash", "a_setting", "an_exit", "nothing", "health")
    found = list(one_after_the_other(checks, Options(None, "here")))
    assert [(f.name, f.ok) for f in found] == [
        ("health", True),
        ("an_error", True),
        ("an_error", False),
        ("a_crash", False),
        ("a_setting", False),
        ("an_exit", False),
        ("nothing", False),
        ("health", True),
    ]
    _, _, error, crash, setting, _, nothing, health = found
    assert error.found == "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    assert "install one that is built for its compute capability" in error.todo
    assert crash.found == "its process ended with SIGSEGV: corrupted size vs. prev_size"
    assert "--debug" in crash.todo
    assert (setting.found, setting.todo) == ("storage=x: choose another", "")
    assert nothing.found.startswith("AttributeError")
    assert health.found == "here"


@pytest.mark.slow
def test_a_hang_is_given_up_and_its_process_ended(tmp_path):
    pid = tmp_path / "pid"
    begin = time.monotonic()
    found = list(examine(Options(None, str(pid)), [sick("health"), sick("a_hang", limit=6.0) + sick("health")]))
    assert time.monotonic() - begin < 60
    hang = Finding("a_hang", False, "no answer in 6 s", "wait no longer")
    health = Finding("health", True, str(pid))
    assert found == [health, hang, health]
    assert not Path("/proc", pid.read_text().strip()).exists()


@pytest.mark.slow
def test_debug_shows_the_traceback(capfd):
    list(one_after_the_other(sick("an_error"), Options(None, "here"), debug=True))
    assert "Traceback" in capfd.readouterr().err
    list(one_after_the_other(sick("an_error"), Options(None, "here")))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("ok", "todo", "state"), [(True, "", "ok"), (True, "x", "note"), (False, "x", "fails")])
def test_states(ok, todo, state):
    assert Finding("a", ok, "b", todo).state == state


def test_looking_needs_no_torch():
    """What a machine with a broken torch can still say."""
    code = "import sys; from raydistill.commands.doctor import examine, show; print({'torch', 'ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
