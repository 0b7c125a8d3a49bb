"""Ray: connecting to it, and several workers for one distillation."""

import os

from raydistill.system.storage import NOWHERE, home

# Set before Ray is imported anywhere; what the user has set stays.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless the user wants it
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; without it each start warns
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # trials write their own TensorBoard logs
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # raydistill.sweep.reporting.watch listens for Ctrl-C
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which prints tables of its own, whatever `verbose` says
# Under `uv run` Ray would build the whole environment (6 GB) anew for each session; nodes have theirs already.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
if home() is None:
    os.environ["HOME"] = str(NOWHERE)  # Ray Tune cannot be imported without, here and in the workers
