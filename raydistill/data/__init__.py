"""Real data: their sources, their splits and their normalisation."""

from raydistill.data.dataset import Dataset, Split, load_dataset
from raydistill.data.identity import check_same, identity, is_same

__all__ = ["Dataset", "Split", "check_same", "identity", "is_same", "load_dataset"]
