"""Checks before a sweep begins or resumes: its storage, its real data, and the trials that it may choose."""

from typing import Any

from raydistill.config.distill_config import DistillConfig
from raydistill.config.marks import DecidesFit
from raydistill.config.sections import is_marked
from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import sweep_values
from raydistill.data import Dataset, check_same, identity
from raydistill.evaluation.problem import check_problem
from raydistill.private_api.tune_trials import TUNER_FILE
from raydistill.store.bank import Bank
from raydistill.system.errors import UserError
from raydistill.system.storage import exists, join, read_json

DATA_FILE = "data.json"  # The file in a sweep's folder that identifies its real data.


def data_known(folder: str, data: Dataset, allow_other_data: bool) -> dict[str, Any]:
    """Return what identifies the real data of a resumed sweep, with a mark if they ever were others than at its start.

    Args:
        folder: the sweep's.
        data: the real data now.
        allow_other_data: whether they may differ from those that the sweep began with.

    Raises:
        UserError: they differ, and may not.
    """
    place = join(folder, DATA_FILE)
    kept = read_json(place) if exists(place) else {}
    same = check_same(data, kept, folder, allow_other_data)
    return {**identity(data), **({} if same and not kept.get("other_data") else {"other_data": True})}


def check_storage(config: SweepConfig, folder: str, resume: bool) -> None:
    """Check that there is nothing to overwrite, or with `resume` that this same sweep is there.

    Raises:
        UserError: the folder holds a sweep already, or none to resume, or another one.
    """
    started = exists(join(folder, TUNER_FILE))
    if not resume:
        if started:
            raise UserError(f"{folder}: contains a sweep already; resume it (--resume) or choose another --set name=")
        return
    if not started:
        raise UserError(f"{folder}: holds no sweep to resume")
    old, new = (c.model_dump(mode="json") for c in (validated(SweepConfig, sweep_values(folder)), config))
    changed = [key for key in new if key != "storage" and old[key] != new[key]]
    if changed:
        raise UserError(f"{folder}: was begun with another {', '.join(changed)}; resume it with the same sweep file")


def check_trials(config: SweepConfig, data: Dataset, bank: Bank | None) -> None:
    """Check every kind of trial that the sweep may choose.

    Raises:
        UserError: one does not fit the real data or the bank.
    """
    deciding = [name for name in config.search if is_marked(DistillConfig, name, DecidesFit)]
    for point in config.combinations(deciding):
        check_problem(config.trial_config(point), data, bank)
