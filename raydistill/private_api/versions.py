"""The versions of Ray and Optuna that the private names were tested with."""

import logging
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from raydistill.system.errors import UserError

TESTED = {"ray": ("2.52", "2.60"), "optuna": ("4.2", "5.0")}
"""For each package the lowest version that works, which pyproject.toml names too, and the newest that was tested."""

logger = logging.getLogger("raydistill")


def check_versions() -> None:
    """Refuse a Ray or an Optuna that is too old, and name one that is newer than all that were tested.

    A package that is not installed is left to the import that will miss it.

    Raises:
        UserError: a package is older than the lowest version that works.
    """
    for name, (lowest, newest) in TESTED.items():
        try:
            there = Version(version(name))
        except PackageNotFoundError:
            continue
        if there < Version(lowest):
            raise UserError(
                f"{name} {there}: is older than {lowest}, the lowest that works; install '{name}>={lowest}'"
            )
        if there.release[:2] > Version(newest).release[:2]:
            logger.warning(
                "%s %s: is newer than %s, the newest that was tested; if it fails, install '%s==%s.*'",
                *(name, there, newest, name, newest),
            )
