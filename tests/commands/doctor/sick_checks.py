"""Checks that go wrong in every way, for test_examine.py."""

import os
import signal
import sys
import time
from pathlib import Path

from raydistill.commands.doctor.finding import Finding
from raydistill.system.errors import UserError


def look_at_health(options):
    yield Finding("health", True, options.storage)


def look_at_an_error(options):
    yield Finding("an_error", True, "the first half")
    raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")


def look_at_a_setting(options):
    raise UserError("storage=x: choose another")


def look_at_a_crash(options):
    os.write(2, b"corrupted size vs. prev_size\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    yield


def look_at_an_exit(options):
    sys.exit(3)


def look_at_a_hang(options):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(options.storage).write_text(str(os.getpid()))
    time.sleep(1000)
    yield
