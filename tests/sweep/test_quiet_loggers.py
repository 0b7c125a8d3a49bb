"""Loggers of Ray that are silent while a sweep runs."""

import logging

from raydistill.private_api.tune import LOGGERS
from raydistill.sweep.reporting.quiet_loggers import quiet_loggers


def test_they_write_only_critical_messages_within_it(caplog):
    ray, other = logging.getLogger(LOGGERS[0]), logging.getLogger("another")
    with quiet_loggers():
        ray.error("a traceback")
        ray.critical("the end")
        other.error("its own")
    ray.error("after it")
    assert caplog.messages == ["the end", "its own", "after it"]
