"""The hosts themselves: what they share, what they do not, and that nothing of them outlives the test."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import Hosts, wait_until

pytestmark = pytest.mark.usefixtures("namespaces")


@pytest.fixture
def pair(tmp_path):
    with Hosts(tmp_path) as hosts:
        yield hosts.add("left"), hosts.add("right")


def test_hosts_reach_each_other_by_address_and_name(pair):
    left, right = pair
    server = right.start(sys.executable, "-m", "http.server", "8000", stderr=subprocess.DEVNULL)
    ask = "import urllib.request as u; print(u.urlopen('http://right:8000', timeout=1).status)"
    wait_until(lambda: left.run(sys.executable, "-c", ask, check=False).stdout == "200\n", 20, "an answer")
    [pid] = right.processes("http.server")
    server.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5, "the end of the server")


def test_a_host_has_its_own_places_and_reaps(pair, tmp_path):
    left, right = pair
    left.run("touch", "/tmp/ray/mine", "/dev/shm/mine", tmp_path / "ours")
    assert right.run("ls", "/tmp/ray", "/dev/shm", tmp_path).stdout.count("mine") == 0
    assert "ours" in right.run("ls", tmp_path).stdout
    assert not Path("/tmp/ray/mine").exists()
    left.run("sh", "-c", "(sleep 0.1 &) ; exit")  # an orphan
    wait_until(lambda: len(left.processes("")) == 2, 5, "only the first process and its sleep")


def test_a_lost_host_takes_all_its_processes(pair):
    left, right = pair
    long = right.start("sleep", "99")
    wait_until(lambda: right.processes("sleep 99"), 5, "a start")
    [pid] = right.processes("sleep 99")
    right.kill()
    assert long.wait(5) != 0
    assert not right.alive
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5, "an end")
    assert left.run("echo", "here").stdout == "here\n"


def test_nothing_outlives_a_killed_test(tmp_path):
    script = (
        "import sys; from pathlib import Path; from hosts import Hosts; hosts = Hosts(Path(sys.argv[1]))\n"
        "print(hosts.add().pid, hosts._switch.pid, flush=True); hosts.all[0].run('sleep', '99')"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    test = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in test.stdout.readline().split()]
    assert len(pids) == 2
    space = os.readlink(f"/proc/{pids[0]}/ns/net")
    test.send_signal(signal.SIGKILL)
    test.wait()
    wait_until(lambda: space not in _network_spaces(), 5, "the end of the host's network")


def _network_spaces():
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.add(os.readlink(process / "ns/net"))
        except OSError:
            continue
    return found
