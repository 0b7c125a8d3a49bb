"""What private names of OptunaSearch and Optuna are relied upon to do; sweeps that use them are in tests/sweep."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from raydistill.private_api.optuna import (
    JournalWriter,
    asked_trials,
    contains,
    enter_trial,
    space_of,
    study_of,
    told_trials,
)


@pytest.fixture
def search():
    return OptunaSearch(space={"x": FloatDistribution(0.0, 1.0)}, metric="loss", mode="min")


def test_a_search_keeps_its_study_and_its_trials(search):
    point = search.suggest("a")
    assert asked_trials(search)["a"].params == point
    assert [trial.state for trial in study_of(search).trials] == [TrialState.RUNNING]
    assert told_trials(search) == set()
    search.on_trial_complete("a", {"loss": 0.5})
    assert told_trials(search) == {"a"}
    assert study_of(search).trials[0].value == 0.5
    assert space_of(search) == {"x": FloatDistribution(0.0, 1.0)}


def test_a_trial_is_entered_as_if_it_had_been_asked_for(search):
    enter_trial(search, "b", {"x": 0.25})
    assert asked_trials(search)["b"].params == {"x": 0.25}
    search.on_trial_complete("b", {"loss": 2.0})
    assert [(trial.state, trial.value) for trial in study_of(search).trials] == [(TrialState.COMPLETE, 2.0)]


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (FloatDistribution(0.1, 1.0, log=True), 0.1, 0.09),
        (IntDistribution(1, 5), 5, 6),
        (CategoricalDistribution((0.1, 0.2)), 0.2, 0.3),
    ],
)
def test_what_a_distribution_contains(distribution, inside, outside):
    assert contains(distribution, inside)
    assert not contains(distribution, outside)


class Lines(BaseJournalBackend):
    def __init__(self):
        self.logs = []

    def append_logs(self, logs):
        self.logs += logs

    def read_logs(self, log_number_from):
        return self.logs[log_number_from:]


def test_a_journal_is_written_while_a_trial_runs(search):
    search.suggest("a")
    lines, trials = Lines(), study_of(search).get_trials(deepcopy=False)
    writer = JournalWriter(lines, "s", study_of(search).directions)
    number = writer.add_trial(trials[0], {"trial": "a"})
    writer.report(number, 3, 0.5)

    def read():
        storage = JournalStorage(lines)
        [trial] = storage.get_all_trials(storage.get_study_id_from_name("s"))
        return trial

    assert (read().state, read().intermediate_values) == (TrialState.RUNNING, {3: 0.5})
    assert (read().params, read().user_attrs) == (trials[0].params, {"trial": "a"})
    writer.finish(number, TrialState.COMPLETE, [0.25])
    assert (read().state, read().value) == (TrialState.COMPLETE, 0.25)
