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


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_that_starts_meanwhile_takes_no_signal():
    """`ray.init` has a handler of its own for SIGTERM."""
    import ray

    from raydistill.cluster.connect import ray_running
    from raydistill.config.sweep_sections import Resources

    assert not ray.is_initialized()
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop, ray_running(Resources()):
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
    assert signal.getsignal(signal.SIGTERM) == before
