"""The rows that are made of Tune's trials."""

import os

import pytest
from played import POINT, played

from raydistill.sweep.reporting.index_rows import Rows
from raydistill.sweep.trial_row import TrialRow


@pytest.fixture
def rows(tmp_path):
    return Rows(str(tmp_path), iterations=40)


def test_every_trial_has_its_row(rows, tmp_path):
    trials = [
        played("a", "TERMINATED", 40, checkpoint=3, val_accuracy_std=0.25, val_loss=1.5, grad_steps=6),
        played("b", "TERMINATED", 20),
        played("c", "TERMINATED", 10, accuracy=0.0, diverged=1),
        played("d", "RUNNING", 10),
        played("e", "PENDING"),
        played("f", "ERROR"),
    ]
    rows.finish(trials)
    made = {row.trial: row for row in rows.make(trials, "running")}
    states = ["TERMINATED", "STOPPED", "TERMINATED", "RUNNING", "PENDING", "ERROR"]
    assert [row.status for row in made.values()] == states
    measured = (made["a"].val_accuracy, made["a"].val_accuracy_std, made["a"].val_loss, made["a"].grad_steps)
    assert measured == (0.5, 0.25, 1.5, 6)
    assert made["b"].artifact == f"{tmp_path}/trial-b/checkpoint_000000/best.distilled"
    assert (made["c"].diverged, made["d"].diverged, made["e"].diverged) == (True, False, None)
    assert (made["d"].node, made["d"].time.timestamp()) == ("192.0.2.1", 1_800_000_000)
    assert made["e"] == TrialRow("e", "PENDING", POINT)


def test_a_trial_that_the_stopped_sweep_cut_is_paused(rows):
    trials = [played("a", "RUNNING", 10), played("b", "RUNNING"), played("c", "TERMINATED", 10)]
    assert [row.status for row in rows.make(trials, "stopping")] == ["RUNNING", "RUNNING", "PAUSED"]
    assert [row.status for row in rows.make(trials, "stopped")] == ["PAUSED", "PENDING", "PAUSED"]


def test_a_finished_trials_row_is_made_once_until_the_sweep_ends(rows):
    trials = [played("a", "TERMINATED", 40)]
    rows.finish(trials)
    [first] = rows.make(trials, "running")
    assert rows.make(trials, "running")[0] is first
    rows.show_front([TrialRow("a", "TERMINATED", artifact="kept/a.distilled")])
    [last] = rows.make(trials, "testing")
    assert last.artifact == os.path.abspath("kept/a.distilled")


def test_a_population_has_the_settings_of_its_best_member(rows):
    members = [{"inner_lr": 0.2}, {"inner_lr": 0.4}]
    [row] = rows.make([played("a", "RUNNING", 10, members=members, best_member=1)], "running")
    assert row.config == POINT | {"inner_lr": 0.4}


def test_a_population_that_diverged_has_the_settings_that_were_suggested(rows):
    """Its last result has one member without settings, whichever was the best before."""
    [row] = rows.make([played("a", "RUNNING", 10, accuracy=0.0, diverged=1, members=[{}], best_member=1)], "running")
    assert (row.config, row.diverged) == (POINT, True)
