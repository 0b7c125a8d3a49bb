"""One driver a sweep: processes that hold a lease, die, sleep or begin together, in a folder and in an object store."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from running import beginning
from small_sweep import wait_for

from raydistill.sweep.surviving import exclusive
from raydistill.sweep.surviving import holder as holder_module
from raydistill.sweep.surviving import lease as lease_module
from raydistill.sweep.surviving.holder import FOLDER, Holder, newest
from raydistill.sweep.surviving.lease import leased
from raydistill.system.errors import UserError
from raydistill.system.storage import join, names, open_place, replace_file

HEARTBEAT, LEASE = 0.6, 4.0  # of these tests
HOLD = """
import logging, sys, time
from raydistill.system.errors import UserError
from raydistill.sweep.surviving import holder
holder.HEARTBEAT, holder.LEASE = {heartbeat}, {lease}
from raydistill.sweep.surviving.lease import leased

logging.basicConfig(stream=sys.stdout, format="%(message)s")
if len(sys.argv) > 2:
    print("ready", flush=True)
    sys.stdin.readline()  # all begin at once
try:
    with leased(sys.argv[1]) as lease:
        print("has it", flush=True)
        while True:
            time.sleep(0.01)
            lease.check()
except UserError as error:
    print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for module in (lease_module, holder_module):
        monkeypatch.setattr(module, "HEARTBEAT", HEARTBEAT)
        monkeypatch.setattr(module, "LEASE", LEASE)


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "t") if request.param == "folder" else join(request.getfixturevalue("s3"), "t")


@pytest.fixture
def holder():
    """Begins a process that holds the lease of a sweep, which the test does not leave behind."""
    with beginning(stdin=subprocess.PIPE) as process:
        yield lambda *arguments: process(
            sys.executable, "-c", HOLD.format(heartbeat=HEARTBEAT, lease=LEASE), *arguments
        )


def said(process):
    return process.stdout.readline().strip()


def put(place, number, content):
    """A lease as another host would have left it."""
    filesystem, inside = open_place(join(place, FOLDER, f"{number:06d}"))
    filesystem.create_dir(inside.rpartition("/")[0], recursive=True)
    replace_file(filesystem, inside, content)


def elsewhere(**update):
    return replace(Holder("process 7 on far", "abc", "another machine", 7, "1", time.time()), **update)


def test_of_several_that_begin_together_one_has_it(place, holder):
    processes = [holder(place, "together") for _ in range(4)]
    assert [said(process) for process in processes] == ["ready"] * 4
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    lines = {process.pid: said(process) for process in processes}
    [winner] = [pid for pid, line in lines.items() if line == "has it"]
    for line in lines.values():
        assert line == "has it" or f"{place}: in use by process {winner} on " in line
        assert line == "has it" or ("raydistill stop" in line and "raydistill sweep --resume" in line)
    assert len(names(*open_place(join(place, FOLDER)))) == 1  # nothing is left of trying what the store can do


def test_one_that_died_here_is_followed_at_once(place, holder):
    first = holder(place)
    assert said(first) == "has it"
    first.send_signal(signal.SIGKILL)  # and not waited for: it is a zombie
    wait_for(lambda: newest(*open_place(join(place, FOLDER)))[1].free)
    told = []
    with leased(place, told.append):
        assert told == []


@pytest.mark.slow
def test_one_that_slept_too_long_gives_way(place, holder):
    first = holder(place)
    assert said(first) == "has it"
    first.send_signal(signal.SIGSTOP)
    wait_for(lambda: newest(*open_place(join(place, FOLDER)))[1].state == "stopped")
    told, begin = [], time.monotonic()
    with leased(place, told.append) as lease:
        waited = time.monotonic() - begin
        assert LEASE - HEARTBEAT < waited < 3 * LEASE
        assert f"in use by process {first.pid}" in told[0]
        assert int(told[0].partition("resumes in ")[2].split()[0]) == pytest.approx(waited, abs=1.5)
        first.send_signal(signal.SIGCONT)
        assert f"was taken over by process {os.getpid()} on " in said(first)
        first.wait(5)
        time.sleep(2 * HEARTBEAT)
        assert lease.held  # the other has not written over it


@pytest.mark.slow
def test_one_that_slept_through_another_s_whole_life_gives_way(tmp_path, holder):
    first = holder(str(tmp_path / "t"))
    assert said(first) == "has it"
    first.send_signal(signal.SIGSTOP)
    put(str(tmp_path / "t"), 2, elsewhere(ended=True).to_bytes())
    time.sleep(LEASE + 1)
    first.send_signal(signal.SIGCONT)
    assert "was taken over by process 7 on far" in said(first)


@pytest.mark.slow
def test_one_that_slept_past_its_lease_ends_where_nobody_took_it_over_too(place, holder):
    process = holder(place)
    assert said(process) == "has it"
    process.send_signal(signal.SIGSTOP)
    time.sleep(LEASE + 1)
    process.send_signal(signal.SIGCONT)
    assert "its driver was suspended for" in said(process)
    process.wait(5)
    told = []
    with leased(place, told.append):
        assert told == []  # at once, as that process is dead


def test_one_on_another_machine_is_waited_for_and_refuses_when_it_gives_a_sign_of_life(place):
    put(place, 3, elsewhere(beat=time.time() + 60).to_bytes())  # by a clock that is ahead
    told = []

    def tell(line):
        told.append(line)
        put(place, 3, elsewhere(beat=time.time() + 61).to_bytes())

    with (
        pytest.raises(UserError, match="in use by process 7 on far; to take it over, end that driver"),
        leased(place, tell),
    ):
        pass
    assert told == [f"{place}: in use by process 7 on far; resumes in 5 s if that one gives no sign of life"]


@pytest.mark.slow
@pytest.mark.parametrize("content", [elsewhere(beat=0.0).to_bytes(), b"", b"half {", b"[]", b'{"beat": "x", "pid": 1}'])
def test_an_old_or_unreadable_lease_is_waited_for_two_heartbeats(tmp_path, content):
    put(str(tmp_path), 9, content)
    begin = time.monotonic()
    with leased(str(tmp_path)):
        assert 2 * HEARTBEAT <= time.monotonic() - begin < LEASE
        assert names(*open_place(str(tmp_path / FOLDER))) == ["000010"]


def test_an_ended_one_is_followed_at_once_and_its_number_never_comes_again(place):
    for number in (1, 2, 3):
        with leased(place) as lease:
            assert lease.number == number
            filesystem, inside = open_place(join(place, "tuner.pkl"))  # a sweep that began
            replace_file(filesystem, inside, b"")


def test_of_a_sweep_that_never_began_nothing_is_left(tmp_path):
    with leased(str(tmp_path / "runs" / "t")):
        assert (tmp_path / "runs" / "t").is_dir()
    assert not list(tmp_path.iterdir())


def test_a_driver_whose_folder_is_moved_ends(tmp_path):
    with leased(str(tmp_path / "t")) as lease:
        (tmp_path / "t").rename(tmp_path / "u")
        wait_for(lambda: lease.lost)
        with pytest.raises(UserError, match="was moved or deleted"):
            lease.check()
    assert os.listdir(tmp_path) == ["u"]


def test_a_store_that_cannot_keep_two_apart_says_so(s3, monkeypatch):
    told = []
    monkeypatch.setitem(sys.modules, "boto3", None)
    with leased(join(s3, "t"), told.append), pytest.raises(UserError, match="in use by"), leased(join(s3, "t")):
        pass
    assert len(told) == 1
    assert "boto3 is missing" in told[0]


def test_a_server_that_heeds_no_conditions_is_found_out(s3):
    client, bucket, key = exclusive.s3_client(join(s3, "t"))
    assert exclusive.takes_conditions(client, bucket, key)

    def unconditional(params, **more):
        del params["headers"]["If-None-Match"]

    client.meta.events.register("before-call.s3.PutObject", unconditional)
    assert not exclusive.takes_conditions(client, bucket, key)


def test_the_later_of_two_that_such_a_store_lets_in_keeps_it(tmp_path):
    with leased(str(tmp_path)) as lease:
        put(str(tmp_path), lease.number, elsewhere().to_bytes())
        wait_for(lambda: lease.lost)
    assert newest(*open_place(str(tmp_path / FOLDER)))[1].name == "process 7 on far"
