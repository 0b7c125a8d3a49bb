"""Ray's cluster: finding, joining or starting it, its nodes, and the check of a cluster.yaml."""

import os

from raydistill.private_api.environment import set_variables
from raydistill.private_api.versions import check_versions
from raydistill.system.storage import NOWHERE, home

check_versions()  # Another version may lack a private name.
set_variables()
# Ray reads these when it is imported; what the user has set stays.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Nothing is sent anywhere unless the user wants it.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # Trials write their own TensorBoard logs.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # The commands listen for Ctrl-C.
# Under `uv run` Ray would build the whole environment (6 GB) anew for each session; nodes have theirs already.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
if home() is None:
    os.environ["HOME"] = str(NOWHERE)  # Ray Tune cannot be imported without, here and in the workers
