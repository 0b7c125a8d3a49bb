"""Events of a sweep and what becomes of them: on trials that are played, and on a real Ray."""

import os
import signal
import threading
import time
from collections import Counter

import pytest
from played import CONFIG, played

from raydistill.store.artifact import load
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.reporting import index_writer, storage_writer
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.reporting.status import read_status, stop
from raydistill.sweep.reporting.watch import Watch
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.surviving.lease import leased
from raydistill.sweep.surviving.storage_failures import STORAGE_FAILURES
from raydistill.system.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def lease(tmp_path):
    with leased(str(tmp_path)) as held:
        yield held


@pytest.fixture
def watch(tmp_path, lease):
    made = Watch(CONFIG, str(tmp_path), lease)
    made.index.search = optuna_search(CONFIG)
    yield made
    made.index.storage.close()


def test_what_happens_to_trials_is_in_the_index(watch, tmp_path):
    trials = [played("a", "RUNNING", 40), played("b", "RUNNING", 10)]
    watch.on_step_begin(iteration=0, trials=trials)
    watch.on_step_end(iteration=0, trials=trials)
    trials[0] = played("a", "TERMINATED", 40)
    watch.on_trial_complete(iteration=1, trials=trials, trial=trials[0])
    trials[1] = played("b", "ERROR", 10)
    watch.on_trial_error(iteration=1, trials=trials, trial=trials[1])
    watch.on_step_end(iteration=1, trials=trials)
    watch.index.end("done")
    assert [(row.trial, row.status) for row in read_index(str(tmp_path)).rows] == [("a", "TERMINATED"), ("b", "ERROR")]


@pytest.mark.slow
def test_its_share_of_the_drivers_time_is_small_with_many_trials(watch, monkeypatch):
    """Results come in without end: the pauses grow with what a writing costs."""
    trials = [played(f"{number:08d}", "TERMINATED", 20 + number % 2) for number in range(3000)]
    trials += [played(f"run{number}", "RUNNING", 10) for number in range(16)]
    monkeypatch.setattr(index_writer, "EVERY", 0.0)
    watch.on_step_begin(iteration=0, trials=trials)
    watch.on_step_end(iteration=0, trials=trials)
    spent, begin = 0.0, time.monotonic()
    while time.monotonic() - begin < 3:
        at = time.thread_time()  # of a slow machine other programs have a part
        watch.on_trial_result(iteration=0, trials=trials, trial=trials[-1], result={})
        watch.on_step_end(iteration=0, trials=trials)
        spent += time.thread_time() - at
        time.sleep(0.002)
    assert spent / (time.monotonic() - begin) < 0.1


def test_once_a_stop_is_asked_for_results_are_followed_by_checkpoints(watch, monkeypatch, tmp_path):
    raised = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    trials = [played("a", "RUNNING", 10)]
    watch.stop.possible = True
    watch.on_step_begin(iteration=0, trials=trials)
    watch.on_step_end(iteration=0, trials=trials)
    before, after = {}, {}
    watch.on_trial_result(iteration=0, trials=trials, trial=trials[0], result=before)
    watch.index.storage.stop_asked = True
    watch.on_step_end(iteration=1, trials=trials)
    assert (watch.index.state, raised) == ("stopping", [])
    watch.on_trial_result(iteration=1, trials=trials, trial=trials[0], result=after)
    assert (before, after) == ({}, {"should_checkpoint": True})
    watch.on_checkpoint(iteration=1, trials=trials, trial=trials[0], checkpoint=None)
    watch.on_step_end(iteration=2, trials=trials)
    assert (watch.index.state, raised) == ("testing", [signal.SIGUSR1])


def test_a_storage_that_fails_again_and_again_ends_the_sweep(watch, tmp_path):
    trial, log = played("a", "RUNNING", 10), tmp_path / "error.txt"
    trial.error_file = str(log)
    log.write_text("Failure # 1 (occurred at noon)\nOSError: [Errno 28] No space left on device\n")
    for _ in range(STORAGE_FAILURES - 1):
        watch.on_trial_recover(iteration=1, trials=[trial], trial=trial)
    watch.on_checkpoint(iteration=1, trials=[trial], trial=trial, checkpoint=None)  # one came through
    for _ in range(STORAGE_FAILURES - 1):
        watch.on_trial_recover(iteration=1, trials=[trial], trial=trial)
    watch.on_step_end(iteration=1, trials=[trial])
    watch.on_trial_recover(iteration=1, trials=[trial], trial=trial)
    with pytest.raises(UserError, match=r"the storage is full.* raydistill sweep --resume"):
        watch.on_step_end(iteration=1, trials=[trial])


def test_a_gap_in_a_trials_log_is_said_once(watch, caplog):
    trial = played("a", "RUNNING", 10)
    for _ in range(2):
        watch.on_trial_result(iteration=0, trials=[trial], trial=trial, result={"log_trouble": "the log has gaps"})
    assert caplog.messages == ["trial a: the log has gaps"]


@pytest.mark.parametrize(
    ("iterations", "words"),
    [(None, "after iteration 0 and starts again: "), (10, "after iteration 10 and continues from its checkpoint: ")],
)
def test_a_trial_that_is_tried_again_is_said(watch, caplog, iterations, words):
    trial = played("a", "RUNNING", iterations)
    watch.on_trial_recover(iteration=1, trials=[trial], trial=trial)
    assert words in caplog.text


def test_how_it_ended_is_in_the_index(tmp_path, lease):
    for error, state in ((RuntimeError, "failed"), (KeyboardInterrupt, "stopped")):
        watch = Watch(CONFIG, str(tmp_path), lease)
        with pytest.raises(error), watch.running():
            raise error
        assert read_status(str(tmp_path)).state == state


def when_running(place, iterations, act):
    """Does something, in a thread, as soon as the index shows a running trial that came so far."""

    def wait():
        deadline = time.time() + 150
        while time.time() < deadline:
            if os.path.exists(f"{place}/index.parquet"):
                index = read_index(place)
                running = [row for row in index.rows if row.status == "RUNNING"]
                if index.about.state == "running" and any((row.iterations or 0) >= iterations for row in running):
                    return act()
            time.sleep(0.2)
        return None

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_sweep_is_stopped_by_request_and_by_signal_and_goes_on(local_ray, digits, tmp_path, caplog, monkeypatch):
    """Trials that were cut go on from their last step, and end as if nothing had been."""
    from test_sweep import BASE, same_as_undisturbed, sweep_config

    monkeypatch.setattr(index_writer, "EVERY", 0.5)
    monkeypatch.setattr(storage_writer, "LOOK", 0.5)
    before = [signal.getsignal(number) for number in SIGNALS]
    budget = {"trials": 2, "iterations": 200, "concurrent": 1}
    config = sweep_config(tmp_path, base=BASE, budget=budget, scheduler="none", known_good=[])
    place, told = str(tmp_path / "t"), []
    stopper = when_running(place, 2, lambda: told.append(stop(place, 120).state))
    first = run_sweep(config, data=digits)
    stopper.join()
    assert first.stopped
    assert first.to_json()["stopped"]
    assert told == ["stopped"]
    [row] = [row for row in read_index(place).rows if row.status == "PAUSED"]
    assert 2 <= row.iterations < 200
    assert load(row.artifact).provenance["trial"] == row.trial
    assert [signal.getsignal(number) for number in SIGNALS] == before

    asked = []
    killer = when_running(place, row.iterations + 2, lambda: asked.append(True))
    second = run_sweep(config, data=digits, resume=True, stop=lambda: bool(asked))
    killer.join()
    assert second.stopped
    status = read_status(place)
    assert status.state == "stopped"
    assert status.running[0].iterations > row.iterations

    last = run_sweep(config, data=digits, resume=True)
    assert not last.stopped
    rows = read_index(place).rows
    assert Counter(row.status for row in rows) == {"TERMINATED": 2}
    [cut] = [r for r in rows if r.trial == row.trial]
    assert same_as_undisturbed(load(cut.artifact).config, cut.artifact, digits)
    assert not [record for record in caplog.records if "cannot be written" in record.message]
    assert len(list((tmp_path / "t").glob("trial-*/checkpoint_*"))) == 2
    assert {path.name for path in (tmp_path / "t" / "front").iterdir()} == {
        f"trial-{r.trial}.distilled" for r in last.front
    }

    again = run_sweep(config, data=digits, resume=True)  # nothing is left to do
    assert [row.trial for row in again.front] == [row.trial for row in last.front]
    assert [row.status for row in read_index(place).rows] == ["TERMINATED"] * 2
