"""Sweeps with Ray Tune and Optuna. The only package that imports Ray."""
