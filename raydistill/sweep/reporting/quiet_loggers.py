"""Loggers of Ray that are silent while a sweep runs, because the driver reports the same in a line of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

REPORTED_HERE = (  # they would add a traceback to what the driver says in a line
    "ray.tune.execution.tune_controller",
    "ray.tune.execution.experiment_state",
    "ray.train._internal.storage",
    "ray.tune.tune",
)


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Let these loggers write only critical messages within it."""
    levels = {name: logging.getLogger(name).level for name in REPORTED_HERE}
    for name in REPORTED_HERE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
