"""Real data: where they come from, how they are split and normalised."""

from raydistill.data.dataset import Dataset, Split, load_dataset

__all__ = ["Dataset", "Split", "load_dataset"]
