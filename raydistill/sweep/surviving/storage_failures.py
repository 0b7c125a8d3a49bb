"""The decision to give a sweep up because its storage fails."""

from raydistill.sweep.error_reasons import explain, is_of_storage
from raydistill.system.errors import UserError
from raydistill.system.shell import resuming, typed

STORAGE_FAILURES = 4  # Failures in a row after which a sweep ends, because every other trial would fail, too.


class StorageFailures:
    """Counts the trials that the storage made fail in a row, with no other error and no checkpoint in between.

    Args:
        place: the sweep's folder or address.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.in_a_row = 0
        self.reason = ""

    def note(self, error: str) -> None:
        """Count an error of a trial, if it came from the storage.

        Args:
            error: with its traceback, as Tune keeps it.
        """
        self.in_a_row = self.in_a_row + 1 if is_of_storage(error) else 0
        if self.in_a_row >= STORAGE_FAILURES:
            self.reason = explain(error)

    def checkpoint_written(self) -> None:
        """Begin to count anew, as the storage works."""
        self.in_a_row = 0

    def check(self) -> None:
        """Return unless the sweep is to be given up.

        Raises:
            UserError: it is. A stop as on request would not do: Tune would wait for the storage to take its state, file
                by file.
        """
        if self.reason:
            again = typed(resuming(self.place))
            raise UserError(f"{self.place}: {self.reason}; when that is corrected, resume with {again}")
