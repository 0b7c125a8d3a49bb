"""The checks run side by side in a few processes, each with a time limit."""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue

from raydistill.commands.doctor.finding import Finding, Options
from raydistill.commands.doctor.work import ELSE, NO_RAY, work

HERE = "raydistill.commands.doctor."
GRACE = 5.0  # Seconds for a process to end.
GLANCE = 0.2  # Seconds after which the wait for a finding looks for Ctrl-C.


@dataclass(frozen=True)
class Check:
    """A function `look_at_<name>` in a module: from Options to findings.

    limit: seconds until each of its findings, with what it imports. slow: what to do where it takes longer.
    """

    name: str
    module: str
    limit: float
    slow: str


def plan() -> list[list[Check]]:
    """Return the checks in the order shown: lists that run side by side, each one after the other in one process.

    Torch takes seconds to import, and a GPU may be set to serve only one process at a time.
    """
    driver = "see whether nvidia-smi answers; a driver that hangs needs a restart of the machine"
    import_time = "importing takes seconds, minutes on a slow network folder: install on a disk of this machine"
    ray_limit, ray_slow = 60.0, "look into /tmp/ray/session_latest/logs; is the machine very busy?"
    if os.environ.get("RAY_ADDRESS"):  # The limit allows for importing Ray and for a cluster's answer.
        ray_limit, ray_slow = 20.0, f"somebody listens at RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {NO_RAY}"
    return [
        [
            Check("versions", HERE + "versions", 20, import_time),
            Check("driver", HERE + "machine", 60, driver),
            Check("devices", HERE + "machine", 30, driver),
            Check("threads", HERE + "machine", 30, import_time),
            Check("compiler", HERE + "machine", 60, "the C compiler does not end; name another with CC"),
            Check("hypergradient", HERE + "method", 60, driver),
            Check("graph", HERE + "method", 60, driver),
            Check("data", HERE + "places", 20, "the folder does not answer; is its file server up?"),
        ],
        [Check("storage", HERE + "places", 40, "the storage does not answer; is the address right, the server up?")],
        [
            Check("token", HERE + "ray_cluster", 20, import_time),
            Check("ray", HERE + "ray_cluster", ray_limit, ray_slow),
        ],
    ]


def examine(
    options: Options,
    lists: list[list[Check]] | None = None,
    debug: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Finding]:
    """Yield all findings, in the order of the lists, as soon as they are known.

    Args:
        options: the options of the checks.
        lists: of checks, by default those of `plan`.
        debug: show what the processes print, tracebacks among it.
        stop: whether to stop; it is called several times a second.

    Raises:
        KeyboardInterrupt: `stop` returned True.
    """
    ended = threading.Event()  # Ctrl-C sets it, too.
    resource_tracker.ensure_running()  # Started later, by the first process, it would unblock Ctrl-C for that process.
    queues = []
    for checks in plan() if lists is None else lists:
        queue: SimpleQueue[Finding | None] = SimpleQueue()
        threading.Thread(target=_follow, args=(queue, checks, options, debug, ended), daemon=True).start()
        queues.append(queue)
    try:
        for queue in queues:
            while (finding := _next(queue, stop)) is not None:
                yield finding
    finally:
        ended.set()


def _next(queue: "SimpleQueue[Finding | None]", stop: Callable[[], bool]) -> Finding | None:
    """Wait for the next finding of a queue; None is its end."""
    while not stop():
        with suppress(Empty):
            return queue.get(timeout=GLANCE)
    raise KeyboardInterrupt


def _follow(
    queue: "SimpleQueue[Finding | None]", checks: list[Check], options: Options, debug: bool, ended: threading.Event
) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the main process, not for the checks'.
    try:
        for finding in one_after_the_other(checks, options, debug, ended):
            queue.put(finding)
    except Exception as error:  # No process can be started.
        queue.put(Finding(checks[0].name, ok=False, found=f"cannot be looked at: {error}"))
    finally:
        queue.put(None)


def one_after_the_other(
    checks: list[Check], options: Options, debug: bool = False, ended: threading.Event | None = None
) -> Iterator[Finding]:
    """Yield the findings of a list, until `ended`. Where a process dies or is silent too long, a new one takes over."""
    waiting, ended = list(checks), ended or threading.Event()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        words = None if debug else Path(folder, "words")
        while waiting and not ended.is_set():
            ours, theirs = context.Pipe(duplex=False)
            jobs = [(check.name, check.module) for check in waiting]
            process = context.Process(target=work, args=(theirs, jobs, options, words), daemon=True)
            process.start()
            theirs.close()
            try:
                yield from _heard(ours, waiting)
            except EOFError:
                process.join(GRACE)
                yield Finding(waiting.pop(0).name, False, _end(process.exitcode, words), ELSE)
            finally:
                process.kill()
                process.join(GRACE)
                ours.close()


def _heard(pipe: Connection, waiting: list[Check]) -> Iterator[Finding]:
    """Yield a process's findings, until all are there or it is silent too long; remove done checks from the list.

    Raises:
        EOFError: the process is dead.
    """
    while waiting:
        check = waiting[0]
        if not pipe.poll(check.limit):
            waiting.pop(0)
            yield Finding(check.name, False, f"no answer in {check.limit:.0f} s", check.slow)
            return
        finding = pipe.recv()
        if finding is None:  # The check is complete.
            waiting.pop(0)
        else:
            yield finding


def _end(code: int | None, words: Path | None) -> str:
    """Describe how a process ended, with its last words."""
    how = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
    lines = words.read_text(errors="replace").splitlines() if words and words.exists() else []
    last = next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")
    return f"its process ended with {how}{last}"
