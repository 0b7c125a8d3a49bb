"""Options and findings of a check."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Places that the user named: the folder of data sets (None for the default), and the storage of sweeps."""

    data_dir: str | None
    storage: str


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked, whether it is well, what was found, and what to do.

    A line that is well and has a `todo` is a note: something optional is missing, and `todo` says what that costs.
    """

    name: str
    ok: bool
    found: str
    todo: str = ""

    @property
    def state(self) -> str:
        """Word on the screen: ok, note or fails."""
        return "fails" if not self.ok else "note" if self.todo else "ok"
