"""Sweeps with Ray Tune and Optuna."""
