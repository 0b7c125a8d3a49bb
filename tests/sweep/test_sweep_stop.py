"""How a sweep is stopped, on trials that are played."""

import signal
import threading

import pytest
from played import played

from raydistill.sweep.stopping import sweep_stop
from raydistill.sweep.stopping.sweep_stop import PATIENCE, SweepStop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def raised(monkeypatch):
    """The signals that this process sent to itself."""
    found = []
    monkeypatch.setattr(signal, "raise_signal", found.append)
    return found


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock[0]` in seconds."""
    now = [1000.0]
    monkeypatch.setattr(sweep_stop.time, "monotonic", lambda: now[0])
    return now


def possible(asked):
    stop = SweepStop(asked)
    stop.possible = True
    return stop


def test_it_waits_for_the_steps_under_way(raised, caplog):
    asked = []
    stop = possible(lambda: bool(asked))
    trials = [played("a", "RUNNING", 10), played("b", "RUNNING", 10), played("c", "TERMINATED", 40)]
    assert not stop.begin_if_asked(trials)
    assert not stop.end_if_ready(trials)
    asked.append(True)
    assert stop.begin_if_asked(trials)
    assert not stop.begin_if_asked(trials)  # it has begun
    assert "stopping; 2 trials may finish the step they are in" in caplog.text
    assert stop.under_way
    stop.checkpoint_written("a")
    assert not stop.end_if_ready(trials)
    trials[1].status = "ERROR"
    assert stop.end_if_ready(trials)
    assert not stop.end_if_ready(trials)
    assert raised == [signal.SIGUSR1]  # once
    assert not stop.under_way


@pytest.mark.parametrize("by", ["request", "signal"])
def test_its_patience_has_an_end(raised, clock, by):
    stop = possible(lambda: by == "request")
    stop.signalled = lambda: by == "signal"
    trials = [played("a", "RUNNING", 10)]
    assert stop.begin_if_asked(trials)
    clock[0] += PATIENCE[by] - 0.01
    assert not stop.end_if_ready(trials)
    clock[0] += 0.02
    assert stop.end_if_ready(trials)
    assert raised == [signal.SIGUSR1]


def test_handlers_of_signals_are_afterwards_what_they_were():
    """Tune installs one of its own for the signal on which it ends."""
    before = [signal.getsignal(number) for number in SIGNALS]
    stop = SweepStop(lambda: False, signalled=lambda: True)
    with stop.listening():
        assert [signal.getsignal(number) for number in SIGNALS] == before
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        assert stop.begin_if_asked([])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_in_another_thread_nothing_stops_it():
    before = [signal.getsignal(number) for number in SIGNALS]
    begun = []

    def run():
        stop = SweepStop(lambda: True)
        with stop.listening():
            begun.append(stop.begin_if_asked([played("a", "RUNNING", 10)]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert begun == [False]
    assert [signal.getsignal(number) for number in SIGNALS] == before
