"""When the driver writes the index, the journal and the curves, and what it does when it cannot."""

import time

import pytest
from played import CONFIG, played
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydistill.sweep.reporting import index_writer
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.reporting.index_writer import EVERY, LONGEST, SHARE, IndexWriter, Pace
from raydistill.sweep.reporting.journal import JOURNAL
from raydistill.sweep.reporting.sweep_tensorboard import SweepTensorBoard
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.surviving.lease import leased


@pytest.fixture
def writer(tmp_path):
    with leased(str(tmp_path)) as lease:
        made = IndexWriter(CONFIG, str(tmp_path), lease)
        made.search = optuna_search(CONFIG)
        yield made
        made.storage.close()


def begin(writer, trials):
    writer.trials = trials
    writer.begin(trials)


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, EVERY), (1.0, 1.0 / SHARE), (100.0, LONGEST)])
def test_the_pause_grows_with_what_a_writing_costs(monkeypatch, seconds, pause):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace()
    assert pace.due
    pace.wrote(seconds)
    now += 1000
    assert not pace.due  # nothing changed
    pace.changed = True
    now += pause - 1000 - 0.001
    assert not pace.due
    now += 0.002
    assert pace.due


def test_index_and_journal_lie_in_the_sweeps_folder(writer, tmp_path):
    trials = [played("a", "TERMINATED", 40), played("b", "RUNNING", 10)]
    begin(writer, trials)
    writer.say("testing")
    writer.end("done")
    index = read_index(str(tmp_path))
    assert (index.about.state, index.rows) == ("done", writer.current_rows())
    assert [row.status for row in index.rows] == ["TERMINATED", "PAUSED"]
    assert (tmp_path / JOURNAL).read_text().count("\n") >= 3  # the study and two trials


def test_the_sweep_as_a_whole_is_in_tensorboard(writer, tmp_path):
    trials = [played("a", "TERMINATED", 40), played("b", "RUNNING", 10, 0.75), played("e", "ERROR")]
    begin(writer, trials)
    writer.write()
    trials[1] = played("b", "TERMINATED", 40, 0.75)
    writer.rows.finished.add("b")
    writer.say("testing")
    writer.write()
    writer.end("done")
    events = EventAccumulator(str(tmp_path / "sweep"))
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert curves["sweep/best val_accuracy"] == [(1, 0.5), (2, 0.75)]
    assert curves["sweep/trials in the front"] == [(1, 1.0), (2, 1.0)]
    assert curves["sweep/trials failed"] == [(1, 1.0), (2, 1.0)]


def test_curves_that_cannot_be_written_are_said_once_and_the_index_is_written(writer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(SweepTensorBoard, "_add", lambda *arguments: 1 / 0)
    begin(writer, [played("a", "TERMINATED", 40)])
    writer.write()
    writer.write()
    writer.end("done")
    assert caplog.messages == ["the sweep's curves in TensorBoard left out: division by zero"]
    assert read_index(str(tmp_path)).about.state == "done"


def test_what_cannot_be_written_is_said_once_and_ends_nothing(writer, monkeypatch, caplog):
    monkeypatch.setattr(index_writer, "to_parquet", lambda *arguments: 1 / 0)
    for _ in range(3):
        writer.write()
    assert len(caplog.records) == 1
    assert "index.parquet cannot be written; the sweep continues: ZeroDivisionError" in caplog.text


def test_without_its_lease_a_driver_writes_nothing(writer, tmp_path):
    writer.lease.lost = "was taken over"
    writer.say("done")
    assert writer.storage.close()
    assert not (tmp_path / "index.parquet").exists()
