"""How a command is stopped: Ctrl-C and SIGTERM ask it to stop at a good moment."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 130  # The exit code of a command that was stopped before its end, as shells have it for Ctrl-C.


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that returns True after the first Ctrl-C or SIGTERM; a second one interrupts.

    So an iteration is never left half done. Before the function is called for the first time there is nothing to keep,
    and the first signal interrupts. Signals are left alone in threads other than the main one.
    """
    called = asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked or not called:
            raise KeyboardInterrupt
        asked = True

    def stop() -> bool:
        nonlocal called
        called = True
        return asked

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
