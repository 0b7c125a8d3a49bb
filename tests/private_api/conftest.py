"""These tests come first: what a new Ray, Tune or Optuna has changed fails here before it fails anywhere else."""

from pathlib import Path


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: Path(__file__).parent not in item.path.parents)
