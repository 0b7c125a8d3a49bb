"""Loggers of Ray that are silent while a sweep runs, because the driver reports the same in a line of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from raydistill.private_api.tune import LOGGERS


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Let Tune's loggers write only critical messages."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
