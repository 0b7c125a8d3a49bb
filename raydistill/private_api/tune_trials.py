"""What Tune's trials do not offer in public, and the files that Tune keeps of a sweep."""

from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial

STATE_FILES = ("experiment_state-*.json", "search_gen_state-*.json", "searcher-state-*.pkl", "callback-states-*.pkl")
"""The files of Tune's state: trials, search, searcher, callbacks; `*` is the time at which their driver began.

Why: Tune offers no copy of its state at one moment; it reads the newest of each kind, by name.
Tested: Ray 2.52 and 2.60 (`CKPT_FILE_TMPL` of TuneController, SearchGenerator, Searcher and CallbackList).
"""

MOMENT = "%Y-%m-%d_%H-%M-%S"
"""The format of the time in the names of STATE_FILES.

Why: a state that is put back must be the newest by name.
Tested: Ray 2.52 and 2.60.
"""

TUNER_FILE = "tuner.pkl"
"""The file in a sweep's folder that Tune writes before the first trial.

Why: `Tuner.can_restore` says the same, but imports Tune and takes seconds.
Tested: Ray 2.52 and 2.60.
"""

FAILURE = "Failure # "
"""The words with which each error in the error file of a trial begins."""


def staging_folder(trial: Trial) -> Path:
    """Return the local folder in which the driver makes the files that Tune copies to the sweep's storage.

    Why: the documented results name the storage only, and the copies there are of different moments.
    Tested: Ray 2.52 and 2.60 (`Trial.storage.experiment_driver_staging_path`).
    """
    return Path(trial.storage.experiment_driver_staging_path)


def folder_name(trial: Trial) -> str:
    """Return the name of a trial's folder in the storage.

    Why: the documented `Result.path` is there only when the sweep has ended.
    Tested: Ray 2.52 and 2.60 (`Trial.storage.trial_fs_path`).
    """
    return Path(trial.storage.trial_fs_path).name


def kept_checkpoints(trial: Trial) -> list[str]:
    """Return the paths of the checkpoints that Tune holds for kept, in the filesystem of the storage.

    Why: the documented `Trial.checkpoint` is the newest one alone.
    Tested: Ray 2.52 and 2.60 (`Trial.run_metadata.checkpoint_manager.best_checkpoint_results`).
    """
    kept: list[Any] = trial.run_metadata.checkpoint_manager.best_checkpoint_results
    return [result.checkpoint.path for result in kept]


def last_error(trial: Trial) -> str:
    """Return the newest error of a trial with its traceback; an empty text where it has none.

    Why: the documented `Result.error` is there only when the sweep has ended, and is the last error of all.
    Tested: Ray 2.52 and 2.60 (`Trial.error_file`, in which FAILURE begins each error).
    """
    file = Path(trial.error_file or "")
    return file.read_text(errors="replace").rpartition(FAILURE)[2] if file.is_file() else ""
