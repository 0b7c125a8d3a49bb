"""Environment variables that Ray and Tune read and do not document."""

import os

VARIABLES = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AIR_NEW_OUTPUT": "0"}


def set_variables() -> None:
    """Set the variables before Ray is imported; what the user has set stays.

    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 is the default of a coming Ray: a task without a GPU keeps the value of
    CUDA_VISIBLE_DEVICES that its node has. RAY_AIR_NEW_OUTPUT=0 keeps Tune from printing tables of its own.

    Why: without the first every start of Ray warns; the second prints whatever `RunConfig(verbose=0)` says.
    Tested: Ray 2.52 and 2.60.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
