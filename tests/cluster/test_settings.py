"""What Ray is told before it is imported."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["raydistill.sweep.driver", "raydistill.sweep.reporting.result", "raydistill.cluster.connect"]
)
def test_workers_use_the_environment_they_find(module):
    """Ray reads it once, when imported; otherwise it builds the environment again for each session under `uv run`."""
    script = f"import {module}, ray; print(ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
