"""Sweeps with Ray Tune and Optuna."""

import raydistill.cluster  # noqa: F401  what it tells Ray must be said before Ray is imported
