"""A machine so busy that a process of Ray takes longer to start than Ray waits for it, which ends Ray's node."""

import subprocess
import sys

import pytest

STARTS = """
import os, signal, sys, threading, time
from pathlib import Path
import ray
from raydistill.cluster import private_ray

SLOW = int(sys.argv[1])  # starts of Ray whose agent is stopped as soon as it is there
stopped = set()

def agents():
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if "dashboard/agent.py" in words and f"_{os.getpid()}/" in words:
            yield int(process.name)

def hold():
    while len(stopped) < SLOW:
        for agent in set(agents()) - stopped:
            os.kill(agent, signal.SIGSTOP)
            stopped.add(agent)
        time.sleep(0.01)

threading.Thread(target=hold, daemon=True).start()
private_ray.TRIES = int(sys.argv[2])
try:
    private_ray.start_private_ray(num_cpus=1, log_to_driver=False)
    print(ray.get(ray.remote(lambda: 42).remote()), len(stopped))
finally:
    for agent in stopped:
        try:
            os.kill(agent, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


def start(slow, tries):
    command = [sys.executable, "-c", STARTS, str(slow), str(tries)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_is_started_once_more():
    done = start(slow=1, tries=2)
    assert done.stdout.split() == ["42", "1"], done.stderr
    assert "Ray was too slow to start on this machine (try 1 of 2): is it busy?" in done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_a_machine_that_stays_too_slow_is_an_error_of_one_line():
    done = start(slow=1, tries=1)
    assert done.returncode == 1
    *_, last = done.stderr.strip().splitlines()
    assert "UserError: Ray did not start on this machine, which may be too busy (tries: 1); its logs are in /" in last
