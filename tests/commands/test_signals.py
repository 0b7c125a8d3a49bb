"""How signals stop a command."""

import signal
import threading

import pytest

from raydistill.commands.stopping import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_one_interrupts(number):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_before_the_work_begins_the_first_signal_interrupts():
    """While data are read, say: nobody would look for long whether to stop."""
    with stop_on_signals(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_other_threads_hear_no_signals():
    before, answers = signal.getsignal(signal.SIGINT), []

    def work():
        with stop_on_signals() as stop:
            answers.append((stop(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [(False, before)]


def test_a_handler_that_a_library_installed_meanwhile_is_replaced():
    """Ray does so when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
    assert signal.getsignal(signal.SIGTERM) == before
