"""The journal against Optuna's own reader, and against optuna-dashboard."""

import json
import time
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.reporting.journal import Journal, agree
from raydistill.sweep.searching.search_space import optuna_search

VALUES = {
    "name": "t",
    "search": {
        "steps": {"int": [1, 3]},
        "inner_lr": {"loguniform": [0.001, 1.0]},
        "network.init": {"choice": ["xavier", "zero"]},
    },
    "known_good": [{"steps": 2, "inner_lr": 0.5}, {"steps": 1, "inner_lr": 0.25}],
}


def search_for(**update):
    return optuna_search(validated(SweepConfig, VALUES | update))


def read(file):
    """What Optuna makes of a journal."""
    [summary] = optuna.get_all_study_summaries(storage := optuna.storages.JournalStorage(JournalFileBackend(str(file))))
    return optuna.load_study(study_name=summary.study_name, storage=storage)


def same(told, trial):
    keys = ("state", "params", "distributions", "values", "intermediate_values", "datetime_start")
    return all(getattr(told, key) == getattr(trial, key) for key in keys)


def finish(search, name, accuracy, error=False):
    result = None if error else {"val_accuracy": accuracy, "num_images": 20, "iterations": 2000}
    search.on_trial_complete(name, result, error)


@pytest.mark.parametrize("objectives", [{"val_accuracy": "max"}, {"val_accuracy": "max", "num_images": "min"}])
def test_optuna_reads_what_the_search_knows_at_every_moment(tmp_path, objectives):
    search = search_for(objectives=objectives)
    journal, file = Journal("t"), tmp_path / "optuna.log"
    before = b""

    def check(names):
        with file.open("ab") as stream:
            stream.write(journal.update(search._ot_study, search._ot_trials))
        nonlocal before
        assert file.read_bytes().startswith(before)  # it only grows
        before = file.read_bytes()
        study = read(file)
        assert study.directions == search._ot_study.directions
        begun = [trial for trial in search._ot_study.trials if trial.state != TrialState.WAITING]
        assert [trial.user_attrs["trial"] for trial in study.trials] == names
        assert len(study.trials) == len(begun)
        by_name = {name: search._ot_study.trials[trial.number] for name, trial in search._ot_trials.items()}
        assert all(same(told, by_name[told.user_attrs["trial"]]) for told in study.trials)

    check([])
    search.suggest("a")
    search.suggest("b")
    check(["a", "b"])
    search.on_trial_result("b", {"val_accuracy": 0.1, "iterations": 10})
    finish(search, "a", 0.5)
    search.suggest("c")
    check(["a", "b", "c"])
    search.on_trial_result("b", {"val_accuracy": 0.2, "iterations": 20})
    finish(search, "c", None, error=True)
    check(["a", "b", "c"])
    finish(search, "b", 0.3)
    check(["a", "b", "c"])
    assert journal.update(search._ot_study, search._ot_trials) == b""
    states = [trial.state.name for trial in read(file).trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_search_taken_from_a_pickle_begins_the_journal_anew(tmp_path):
    """As Tune restores it: the new journal has each trial once, and what was running runs on."""
    search = search_for()
    for name in "abc":
        search.suggest(name)
    finish(search, "a", 0.5)
    search.save(str(tmp_path / "state"))
    again = search_for(seed=5)
    again.restore(str(tmp_path / "state"))
    journal, file = Journal("t"), tmp_path / "optuna.log"
    file.write_bytes(journal.update(again._ot_study, again._ot_trials))
    finish(again, "b", 0.25)
    again.suggest("d")
    with file.open("ab") as stream:
        stream.write(journal.update(again._ot_study, again._ot_trials))
    told = {trial.user_attrs["trial"]: trial.state.name for trial in read(file).trials}
    assert told == {"a": "COMPLETE", "b": "COMPLETE", "c": "RUNNING", "d": "RUNNING"}


def tune_trial(search, name, status="PENDING", accuracy=None, config=None):
    last = {} if accuracy is None else {"val_accuracy": accuracy, "num_images": 20, "iterations": 2000}
    config = config or search._ot_trials[name].params
    return SimpleNamespace(
        trial_id=name,
        config=config,
        status=status,
        last_result=last,
        is_finished=lambda: status in ("TERMINATED", "ERROR"),
    )


def test_a_restored_search_and_table_agree():
    search = search_for()
    for name in "abcd":
        search.suggest(name)
    finish(search, "a", 0.5)
    point = {"steps": 3, "inner_lr": 0.125, "network.init": "zero"}
    trials = [
        tune_trial(search, "a", "TERMINATED", 0.5),
        tune_trial(search, "b"),
        tune_trial(search, "c", "TERMINATED", 0.75),  # Optuna's part is older
        tune_trial(search, "x", config=point),  # likewise
    ]  # and d was asked for, but is in no table
    agree(search, trials)
    states = {name: search._ot_study.trials[trial.number].state.name for name, trial in search._ot_trials.items()}
    assert states == {"a": "COMPLETE", "b": "RUNNING", "c": "COMPLETE", "d": "FAIL", "x": "RUNNING"}
    assert search._ot_trials["x"].params == point
    search.on_trial_result("a", {"val_accuracy": 0.5, "num_images": 20, "iterations": 30})  # goes on, told as finished
    finish(search, "x", 0.625)
    assert search._ot_study.trials[-1].values == [0.625, 20]
    agree(search, [*trials[:-1], tune_trial(search, "x", "TERMINATED", 0.625)])  # nothing is told twice
    assert len(search._ot_study.trials) == 5


def test_populations_enter_their_members(tmp_path):
    search = search_for()
    point = search.suggest("a")
    members = [{"inner_lr": point["inner_lr"], "val_accuracy": 0.5}, {"inner_lr": 0.25, "val_accuracy": 0.75}]
    search.on_trial_complete("a", {"val_accuracy": 0.75, "num_images": 20, "iterations": 2000, "members": members})
    file = tmp_path / "optuna.log"
    file.write_bytes(Journal("t").update(search._ot_study, search._ot_trials))
    assert [trial.values for trial in read(file).trials] == [[0.5, 20], [0.75, 20]]


def test_optuna_dashboard_shows_the_study(tmp_path):
    from optuna_dashboard import wsgi

    search = search_for()
    search.suggest("a")
    finish(search, "a", 0.5)
    file = tmp_path / "optuna.log"
    file.write_bytes(Journal("t").update(search._ot_study, search._ot_trials))
    app = wsgi(optuna.storages.JournalStorage(JournalFileBackend(str(file))))
    answer = {}
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/0", "QUERY_STRING": "", "SERVER_NAME": "x"}
    request |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    body = b"".join(app(request, lambda status, headers, *rest: answer.update(status=status)))
    assert answer["status"].startswith("200")
    [trial] = json.loads(body)["trials"]
    assert (trial["state"], trial["values"]) == ("Complete", [0.5, 20])


def test_many_trials_cost_little():
    search = search_for()
    for number in range(1000):
        point = {"steps": 1 + number % 3, "inner_lr": 0.1, "network.init": "zero"}
        entry = optuna.trial.create_trial(params=point, distributions=search._space, values=[0.5, number])
        search._ot_study.add_trial(entry)
    journal = Journal("t")
    begin = time.process_time()
    size = len(journal.update(search._ot_study, {}))
    assert (time.process_time() - begin) / 1000 < 0.005  # seconds a trial
    assert size / 1000 < 1000  # bytes a trial
    begin = time.process_time()
    for _ in range(20):
        journal.update(search._ot_study, {})
    assert (time.process_time() - begin) / 20 < 0.02  # seconds, where nothing is new
