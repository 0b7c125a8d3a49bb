"""The meaning of a trial's error, in one line that says what to do."""

import re

STORE = "the storage"
REASONS = (  # Each has words of the error, the part that failed, and what happened with what would help.
    (
        r"raydistill\.system\.errors\.UserError: (?P<said>.+)",
        "",
        "{said}",
    ),
    (
        r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA (?:error: )?out of memory|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED",
        "its GPU",
        "has too little memory left for it; a larger share (resources.gpu), smaller sets or batches, or fewer networks "
        "would help: {line}",
    ),
    (
        r"OutOfMemoryError|Workers? \(tasks / actors\) killed due to memory pressure",
        "its node",
        "ran out of memory and Ray ended the trial; fewer at a time (budget.concurrent=N), or more memory for each "
        "(resources.memory=GIB), leave it room",
    ),
    (
        r"Errno 28|errno 28|No space left on device|Disk quota exceeded",
        STORE,
        "is full, or the disk on which Ray keeps its files; free some space, or choose another place (storage=)",
    ),
    (
        r"AWS Error|GoogleCloudStorage|When (?:getting|completing|initiating|uploading|listing|creating)[^\n]*'",
        STORE,
        "cannot be reached or refuses: {line}",
    ),
    (
        r"Errno (?:5|13|30|107|116)\]",  # Input/output, permission, read-only, not connected, stale handle.
        STORE,
        "cannot be read or written: {line}",
    ),
    (
        r"RayActorError|ActorDiedError|ActorUnavailableError|WorkerCrashedError|NodeDiedError|ObjectLostError",
        "its process",
        "was lost (ended from outside, or its node is gone)",
    ),
)


def explain(error: str) -> str:
    """Return one line for a trial's error: what failed and what would help.

    Args:
        error: the error with its traceback, as Tune keeps it in a trial's error file.
    """
    lines = [line.strip() for line in error.strip().splitlines() if line.strip()]
    for words, part, what in REASONS:
        if found := re.search(words, error):
            line = next((line for line in reversed(lines) if re.search(words, line)), "")
            said = found.groupdict().get("said", "")
            return f"{part} {what.format(line=_cut(line), said=_cut(said))}".strip()
    return _cut(lines[-1]) if lines else "no reason is known"


def is_of_storage(error: str) -> bool:
    """Return whether the error came from the storage (or a full disk), which fails other trials as well."""
    return explain(error).startswith(STORE)


def _cut(line: str, most: int = 300) -> str:
    """Return a line with at most so many letters."""
    return line if len(line) <= most else line[: most - 3] + "..."
