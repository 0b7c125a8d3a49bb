"""What is kept beside the trials, and how a sweep is stopped: on trials that are played, and on a real Ray."""

import os
import signal
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.store.artifact import load
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.reporting import storage_writer
from raydistill.sweep.reporting import watch as watch_module
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.reporting.status import read_status, stop
from raydistill.sweep.reporting.watch import Watch
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.surviving.lease import leased
from raydistill.system.errors import UserError

CONFIG = validated(
    SweepConfig,
    {
        "name": "t",
        "search": {"steps": {"int": [1, 3]}, "inner_lr": {"loguniform": [0.001, 1.0]}},
        "budget": {"trials": 6, "iterations": 40},
    },
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def played(name, status, iterations=None, accuracy=0.5, diverged=0, checkpoint=0):
    """A trial as Tune shows it to its callbacks."""
    point = {"steps": 2, "inner_lr": 0.1}
    last = {"trial_id": name}
    if iterations is not None:
        last |= {"iterations": iterations, "val_accuracy": accuracy, "num_images": 20, "diverged": diverged}
        last |= {"config": point, "timestamp": 1_800_000_000, "node_ip": "192.0.2.1", "seconds": 1.5}
    path = f"somewhere/t/trial-{name}/checkpoint_{checkpoint:06d}"
    return SimpleNamespace(
        trial_id=name,
        status=status,
        config=point,
        last_result=last,
        checkpoint=SimpleNamespace(path=path) if iterations is not None else None,
        is_finished=lambda: status in ("TERMINATED", "ERROR"),
        error_file=None,
    )


@pytest.fixture
def lease(tmp_path):
    with leased(str(tmp_path)) as held:
        yield held


@pytest.fixture
def watch(tmp_path, lease):
    made = Watch(CONFIG, str(tmp_path), lease)
    made.search = optuna_search(CONFIG)
    yield made
    made.mail.close()


def test_every_trial_has_its_row(watch, tmp_path):
    trials = [
        played("a", "TERMINATED", 40, checkpoint=3),
        played("b", "TERMINATED", 20),
        played("c", "TERMINATED", 10, accuracy=0.0, diverged=1),
        played("d", "RUNNING", 10),
        played("e", "PENDING"),
        played("f", "ERROR"),
    ]
    watch.on_step_begin(iteration=0, trials=trials)
    watch.on_step_end(iteration=0, trials=trials)
    trials[3].status = "TERMINATED"  # by Tune, at the end of the stopped sweep
    watch.say("stopped", [{"trial": "a", "artifact": "kept/a.distilled"}])
    assert watch.mail.close()
    rows = {row["trial"]: row for row in read_index(str(tmp_path)).rows}
    assert [row["status"] for row in rows.values()] == [
        "TERMINATED",
        "STOPPED",
        "TERMINATED",
        "PAUSED",
        "PENDING",
        "ERROR",
    ]
    assert rows["a"]["artifact"] == os.path.abspath("kept/a.distilled")
    assert rows["b"]["artifact"] == f"{tmp_path}/trial-b/checkpoint_000000/best.distilled"
    assert (rows["c"]["diverged"], rows["d"]["diverged"], rows["e"]["diverged"]) == (True, False, None)
    assert (rows["d"]["node"], rows["d"]["time"].timestamp()) == ("192.0.2.1", 1_800_000_000)
    assert (rows["e"]["steps"], rows["e"]["artifact"], rows["e"]["iterations"]) == (2, None, None)


def test_the_sweep_as_a_whole_is_in_tensorboard(watch, tmp_path):
    trials = [played("a", "TERMINATED", 40), played("b", "RUNNING", 10, 0.75), played("e", "ERROR")]
    watch.on_step_begin(iteration=0, trials=trials)
    watch.on_step_end(iteration=0, trials=trials)
    trials[1] = played("b", "TERMINATED", 40, 0.75)
    watch.on_trial_complete(iteration=1, trials=trials, trial=trials[1])
    watch.say("testing")
    watch.on_step_end(iteration=1, trials=trials)
    watch.say("done")
    events = EventAccumulator(str(tmp_path / "sweep"))
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert curves["sweep/best val_accuracy"] == [(1, 0.5), (2, 0.75)]
    assert curves["sweep/trials in the front"] == [(1, 1.0), (2, 1.0)]
    assert curves["sweep/trials failed"] == [(1, 1.0), (2, 1.0)]


def test_what_cannot_be_written_is_said_once_and_ends_nothing(watch, monkeypatch, caplog):
    monkeypatch.setattr(watch_module, "to_parquet", lambda *arguments: 1 / 0)
    for iteration in range(3):
        watch.write()
        watch.on_step_end(iteration=iteration, trials=[])
    assert len(caplog.records) == 1
    assert "index.parquet cannot be written; the sweep goes on: ZeroDivisionError" in caplog.text


def test_its_share_of_the_drivers_time_is_small_with_many_trials(watch, monkeypatch):
    """Results come in without end: the pauses grow with what a writing costs."""
    trials = [played(f"{number:08d}", "TERMINATED", 20 + number % 2) for number in range(3000)]
    trials += [played(f"run{number}", "RUNNING", 10) for number in range(16)]
    monkeypatch.setattr(watch_module, "EVERY", 0.0)
    watch.on_step_begin(iteration=0, trials=trials)
    watch.on_step_end(iteration=0, trials=trials)
    spent, begin = 0.0, time.monotonic()
    while time.monotonic() - begin < 3:
        at = time.monotonic()
        watch.on_trial_result(iteration=0, trials=trials, trial=trials[-1], result={})
        watch.on_step_end(iteration=0, trials=trials)
        spent += time.monotonic() - at
        time.sleep(0.002)
    assert spent / (time.monotonic() - begin) < 0.1


def test_stopping_waits_for_steps_under_way_but_not_for_ever(watch, monkeypatch):
    raised = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    trials = [played("a", "RUNNING", 10), played("b", "RUNNING", 10), played("c", "TERMINATED", 40)]
    watch.may_stop = True
    watch.on_step_end(iteration=0, trials=trials)
    watch.mail.stop_asked = True
    watch.on_step_end(iteration=1, trials=trials)
    assert (watch.state, raised) == ("stopping", [])
    result = {}
    watch.on_trial_result(iteration=1, trials=trials, trial=trials[0], result=result)
    assert result == {"should_checkpoint": True}
    watch.on_checkpoint(iteration=1, trials=trials, trial=trials[0], checkpoint=None)
    watch.on_step_end(iteration=2, trials=trials)
    assert raised == []
    trials[1].status = "ERROR"
    watch.on_step_end(iteration=3, trials=trials)
    watch.on_step_end(iteration=4, trials=trials)
    assert raised == [signal.SIGUSR1]  # once

    late = Watch(CONFIG, watch.place, watch.lease)
    late.may_stop, late.signalled = True, lambda: True
    monkeypatch.setitem(watch_module.PATIENCE, "signal", 0.2)
    trials = [played("a", "RUNNING", 10)]
    late.on_step_end(iteration=0, trials=trials)
    assert len(raised) == 1
    time.sleep(0.3)
    late.on_step_end(iteration=1, trials=trials)
    assert len(raised) == 2
    late.mail.close()


def test_a_storage_that_fails_again_and_again_ends_the_sweep(watch, tmp_path):
    trial, log = played("a", "RUNNING", 10), tmp_path / "error.txt"
    trial.error_file = str(log)
    log.write_text("Failure # 1 (occurred at noon)\nValueError: another\n")

    def fails(words, times):
        for _ in range(times):
            with log.open("a") as file:
                file.write(f"Failure # 2 (occurred at one)\n{words}\n")
            watch.on_trial_recover(iteration=1, trials=[trial], trial=trial)
            watch.on_step_end(iteration=1, trials=[trial])

    fails("OSError: [Errno 28] No space left on device", watch_module.STORAGE_FAILURES - 1)
    watch.on_checkpoint(iteration=1, trials=[trial], trial=trial, checkpoint=None)  # one came through
    fails("OSError: [Errno 28] No space left on device", watch_module.STORAGE_FAILURES - 1)
    fails("ValueError: of the trial's own", 1)
    with pytest.raises(UserError, match=r"the storage is full.* raydistill sweep --resume"):
        fails("OSError: [Errno 28] No space left on device", watch_module.STORAGE_FAILURES)


@pytest.mark.parametrize(
    ("iterations", "words"),
    [(None, "after iteration 0 and begins again: "), (10, "after iteration 10 and goes on from its checkpoint: ")],
)
def test_a_trial_that_is_tried_again_is_said(watch, caplog, iterations, words):
    trial = played("a", "RUNNING", iterations)
    watch.on_trial_recover(iteration=1, trials=[trial], trial=trial)
    assert words in caplog.text


def test_a_sweep_in_another_thread_hears_no_signals(tmp_path, lease):
    before = [signal.getsignal(number) for number in SIGNALS]
    watch = Watch(CONFIG, str(tmp_path), lease)

    def run():
        with watch.running():
            watch.mail.stop_asked = True
            watch.on_step_end(iteration=0, trials=[played("a", "RUNNING", 10)])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert read_status(str(tmp_path)).state == "done"
    assert [signal.getsignal(number) for number in SIGNALS] == before


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
                running = [row for row in index.rows if row["status"] == "RUNNING"]
                if index.about.state == "running" and any((row["iterations"] or 0) >= iterations for row in running):
                    return act()
            time.sleep(0.2)
        return None

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_sweep_is_stopped_by_request_and_by_signal_and_goes_on(local_ray, digits, tmp_path, caplog, monkeypatch):
    """Trials that were cut go on from their last step, and end as if nothing had been."""
    from test_sweep import BASE, same_as_undisturbed, sweep_config

    monkeypatch.setattr(watch_module, "EVERY", 0.5)
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
    [row] = [row for row in read_index(place).rows if row["status"] == "PAUSED"]
    assert 2 <= row["iterations"] < 200
    assert load(row["artifact"]).provenance["trial"] == row["trial"]
    assert [signal.getsignal(number) for number in SIGNALS] == before

    killer = when_running(place, row["iterations"] + 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    second = run_sweep(config, data=digits, resume=True)
    killer.join()
    assert second.stopped
    status = read_status(place)
    assert status.state == "stopped"
    assert status.running[0]["iterations"] > row["iterations"]

    last = run_sweep(config, data=digits, resume=True)
    assert not last.stopped
    rows = read_index(place).rows
    assert Counter(row["status"] for row in rows) == {"TERMINATED": 2}
    [cut] = [r for r in rows if r["trial"] == row["trial"]]
    assert same_as_undisturbed(load(cut["artifact"]).config, cut["artifact"], digits)
    assert not [record for record in caplog.records if "cannot be written" in record.message]
    assert len(list((tmp_path / "t").glob("trial-*/checkpoint_*"))) == 2
    assert {path.name for path in (tmp_path / "t" / "front").iterdir()} == {
        f"trial-{r['trial']}.distilled" for r in last.front
    }

    again = run_sweep(config, data=digits, resume=True)  # nothing is left to do
    assert [row["trial"] for row in again.front] == [row["trial"] for row in last.front]
    assert [row["status"] for row in read_index(place).rows] == ["TERMINATED"] * 2
