"""Private names of Tune's OptunaSearch and of Optuna."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search.optuna import OptunaSearch


def study_of(search: OptunaSearch) -> optuna.Study:
    """Return the study of a search.

    Why: OptunaSearch keeps it for itself, and the driver reads what it holds and enters trials into it.
    Tested: Ray 2.52 and 2.60 with Optuna 4.2 and 5.0 (`OptunaSearch._ot_study`).
    """
    study: optuna.Study = search._ot_study
    return study


def asked_trials(search: OptunaSearch) -> dict[str, optuna.Trial]:
    """Return Optuna's trials by the names of Tune's, in the order in which Tune asked for them.

    Why: nothing else says which trial of the study is which of Tune's.
    Tested: Ray 2.52 and 2.60 with Optuna 4.2 and 5.0 (`OptunaSearch._ot_trials`).
    """
    trials: dict[str, optuna.Trial] = search._ot_trials
    return trials


def told_trials(search: OptunaSearch) -> set[str]:
    """Return the names of Tune's trials whose end the search has heard of.

    Why: a trial that ends twice, as after a resume, is to be told to Optuna once.
    Tested: Ray 2.52 and 2.60 (`OptunaSearch._completed_trials`).
    """
    told: set[str] = search._completed_trials
    return told


def space_of(search: OptunaSearch) -> dict[str, BaseDistribution]:
    """Return the distributions of a search by the names of their settings.

    Why: a trial that is entered into the study needs them, and a restored search is the only one that has them.
    Tested: Ray 2.52 and 2.60 (`OptunaSearch._space`).
    """
    space: dict[str, BaseDistribution] = search._space
    return space


def enter_trial(search: OptunaSearch, name: str, params: dict[str, Any]) -> None:
    """Enter a running trial of Tune's into the study, at its point.

    Why: `Study.add_trial` adds trials, but returns none, and the constructor of Trial takes Optuna's own number for it.
    Tested: Ray 2.52 and 2.60 with Optuna 4.2 and 5.0 (`FrozenTrial._trial_id`, `optuna.Trial(study, id)`).
    """
    study = study_of(search)
    entry: dict[str, Any] = {"params": params, "distributions": space_of(search)}
    study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, **entry))
    identity = study.get_trials(deepcopy=False)[-1]._trial_id
    asked_trials(search)[name] = optuna.Trial(study, identity)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution holds a value.

    Why: `create_trial` refuses a value outside with the same error as any other fault of a trial.
    Tested: Optuna 4.2 and 5.0 (`BaseDistribution._contains`).
    """
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:  # The value is none of the choices.
        return False


class JournalWriter:
    """A study in Optuna's journal format, to which trials that still run are written as well.

    Why: `Study.add_trial` takes ended trials, and optuna-dashboard is to show running ones. The methods of a storage
    that write them, and the constructor of FrozenTrial, are not meant for users.
    Tested: Optuna 4.2 and 5.0 (`create_new_study`, `create_new_trial`, `set_trial_intermediate_value` and
    `set_trial_state_values` of `BaseStorage`; `FrozenTrial(...)`).

    Args:
        backend: where the lines go.
        name: of the study.
        directions: of its objectives.
    """

    def __init__(self, backend: BaseJournalBackend, name: str, directions: Sequence[StudyDirection]) -> None:
        self._storage = JournalStorage(backend)
        self._study = self._storage.create_new_study(directions, name)

    def add_trial(self, trial: FrozenTrial, attributes: dict[str, Any]) -> int:
        """Write a trial with these user attributes as it is now; return its number in the journal."""
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=trial.state,
            value=None,
            values=trial.values,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=attributes,
            system_attrs={},
            intermediate_values=trial.intermediate_values,
        )
        return self._storage.create_new_trial(self._study, template)

    def report(self, number: int, step: int, value: float) -> None:
        """Write the value that a trial reported at a step."""
        self._storage.set_trial_intermediate_value(number, step, value)

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None) -> None:
        """Write how a trial ended."""
        self._storage.set_trial_state_values(number, state, values)
