"""What Tune's private names are relied upon to do, without a cluster; trials that run are in tests/sweep."""

import importlib
import inspect
from types import CodeType, SimpleNamespace

import pytest
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.event_manager import RayEventManager
from ray.tune.callback import CallbackList
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.search.searcher import Searcher

from raydistill.private_api import tune as private
from raydistill.private_api.tune_trials import MOMENT, STATE_FILES, TUNER_FILE

METHODS = {
    (TuneController, "_process_trial_failure"): ["self", "trial", "exception"],
    (TuneController, "_set_trial_status"): ["self", "trial", "status"],
    (TuneController, "_unstage_trial_with_resources"): ["self", "trial"],
    (TuneController, "__setstate__"): ["self", "state"],
    (TuneController, "resume"): ["self", "resume_config"],
    (RayActorManager, "_actor_task_failed"): ["self", "tracked_actor_task", "exception"],
    (RayEventManager, "resolve_future"): ["self", "future"],
    (_ExperimentCheckpointManager, "on_trial_checkpoint"): ["self", "trial"],
    (_ExperimentCheckpointManager, "sync_up_experiment_state"): ["self", "save_fn", "force", "wait"],
}
REPLACED = {
    "_process_trial_failure": lambda: private.failures_handled(lambda trial, error: True),
    "_actor_task_failed": private.losses_as_actor_errors,
    "resolve_future": lambda: private.before_each_result(lambda: None),
    "on_trial_checkpoint": lambda: private.state_written_by_time_alone(lambda: True),
    "sync_up_experiment_state": lambda: private.state_written_by_time_alone(lambda: True),
    "__setstate__": private.restored_without_decisions,
    "resume": private.restored_in_place,
}
CALLERS = {
    "_process_trial_failure": TuneController,
    "_actor_task_failed": RayActorManager,
    "resolve_future": RayEventManager,
    "on_trial_checkpoint": TuneController,
    "sync_up_experiment_state": TuneController,
}


def names_in(code):
    """The names that a function uses, and the functions in it."""
    found = {*code.co_names, *(const for const in code.co_consts if isinstance(const, str))}
    return found.union(*(names_in(const) for const in code.co_consts if isinstance(const, CodeType)))


def names_of(owner):
    return set().union(*(names_in(f.__code__) for f in vars(owner).values() if inspect.isfunction(f)))


@pytest.mark.parametrize(("owner", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_the_methods_are_there_with_their_parameters(owner, name):
    assert list(inspect.signature(vars(owner)[name]).parameters) == METHODS[owner, name]


@pytest.mark.parametrize("name", CALLERS)
def test_tune_calls_what_is_replaced(name):
    assert name in names_of(CALLERS[name])


@pytest.mark.parametrize("name", REPLACED)
def test_they_are_replaced_within_the_context_only(name):
    [owner] = [owner for owner, method in METHODS if method == name]
    before = vars(owner)[name]
    with REPLACED[name]():
        assert vars(owner)[name] is not before
    assert vars(owner)[name] is before


def test_the_controllers_attributes():
    made = names_in(TuneController.__init__.__code__)
    assert {"_resetting_trials", "_search_alg", "_storage", "_trials", *private.DECISIONS} <= made
    assert "_experiment" in names_of(SearchGenerator)
    assert {"spec", "storage"} <= names_of(Experiment)


def test_decisions_of_an_earlier_driver_are_left_out():
    controller = SimpleNamespace(_create_checkpoint_manager=lambda: None)
    state = {"_session_str": "s", "_start_time": 1.0, "_trials": [], **dict.fromkeys(private.DECISIONS, "old")}
    with private.restored_without_decisions():
        TuneController.__setstate__(controller, state)
    assert controller._trials == []
    assert not vars(controller).keys() & set(private.DECISIONS)


def test_the_state_is_written_while_it_is_allowed():
    written, allowed = [], [False]
    storage = SimpleNamespace(
        experiment_driver_staging_path="", experiment_fs_path="", syncer=SimpleNamespace(sync_up=lambda *paths: True)
    )
    manager = _ExperimentCheckpointManager(storage=storage, checkpoint_period="auto", sync_every_n_trial_checkpoints=1)
    with private.state_written_by_time_alone(lambda: allowed[0]):
        manager.sync_up_experiment_state(lambda: written.append("not allowed"))
        allowed[0] = True
        manager.sync_up_experiment_state(lambda: written.append("first"))
        manager.on_trial_checkpoint("a trial")
        manager.sync_up_experiment_state(lambda: written.append("forced by the checkpoint"))
    assert written == ["first"]
    manager.on_trial_checkpoint("a trial")
    manager.sync_up_experiment_state(lambda: written.append("as Tune does by itself"))
    assert written == ["first", "as Tune does by itself"]


def test_the_check_comes_before_a_result_is_taken():
    manager, order = RayEventManager(), []
    with private.before_each_result(lambda: order.append("check")), pytest.raises(ValueError, match="not tracked"):
        manager.resolve_future("of nobody")
    assert order == ["check"]


def test_a_tuners_parts(tmp_path):
    callback = tune.Callback()
    tuner = tune.Tuner(
        tune.Trainable,
        tune_config=tune.TuneConfig(num_samples=3),
        run_config=tune.RunConfig(name="t", storage_path=str(tmp_path)),
    )
    private.set_callbacks(tuner, [callback])
    for each in (tuner, tune.Tuner.restore(str(tmp_path / "t"), tune.Trainable)):
        assert private.tune_config(each).num_samples == 3
    assert (tmp_path / "t" / TUNER_FILE).is_file()
    assert tuner._local_tuner.get_run_config().callbacks == [callback]
    assert tuner._local_tuner._run_config is tuner._local_tuner.get_run_config()  # the one that `fit` reads


def test_the_names_of_the_state_files():
    templates = [owner.CKPT_FILE_TMPL for owner in (TuneController, SearchGenerator, Searcher, CallbackList)]
    assert [template.format("*") for template in templates] == list(STATE_FILES)
    assert MOMENT in names_in(TuneController.__init__.__code__)


@pytest.mark.parametrize("name", private.LOGGERS)
def test_the_loggers(name):
    assert importlib.import_module(name).logger.name == name
