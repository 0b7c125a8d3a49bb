"""What a check is told, and what it finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What the user says of places: the folder of data sets, None for the usual one, and the storage of sweeps."""

    data_dir: str | None
    storage: str


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is well, what was found, and what to do.

    Where it is well and there is something to do all the same, the line is a note: something optional is missing, and
    `todo` says what that costs.
    """

    name: str
    ok: bool
    found: str
    todo: str = ""

    @property
    def state(self) -> str:
        """As it is shown: ok, note or fails."""
        return "fails" if not self.ok else "note" if self.todo else "ok"
