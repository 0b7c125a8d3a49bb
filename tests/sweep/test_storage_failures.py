"""When a sweep is given up because of its storage."""

import pytest

from raydistill.sweep.surviving.storage_failures import STORAGE_FAILURES, StorageFailures
from raydistill.system.errors import UserError

FULL = "OSError: [Errno 28] No space left on device"


def test_a_storage_that_fails_again_and_again_ends_the_sweep():
    failures = StorageFailures("runs/t")

    def fails(error, times):
        for _ in range(times):
            failures.note(error)
            failures.check()

    fails(FULL, STORAGE_FAILURES - 1)
    failures.checkpoint_written()
    fails(FULL, STORAGE_FAILURES - 1)
    fails("ValueError: of the trial's own", 1)
    with pytest.raises(UserError, match=r"runs/t: the storage is full.* raydistill sweep --resume runs/t"):
        fails(FULL, STORAGE_FAILURES)
