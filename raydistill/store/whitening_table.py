"""A whitening as an Arrow table of plain types, with a row for each number of an image (channel, row, column).

mean  float32, this number of the mean image
row   fixed_size_list<float>[D], this row of the matrix
"""

import math
from collections.abc import Sequence

import pyarrow as pa
import torch

from raydistill.data.whitening import MOST_NUMBERS, Whitening
from raydistill.store.arrow import column, nested, numbers


def whitening_table(whitening: Whitening) -> pa.Table:
    """Return the table of whitening.arrow."""
    return pa.table({"mean": whitening.mean.flatten().numpy(), "row": nested(whitening.matrix.numpy())})


def whitening_from_table(table: pa.Table, image_shape: Sequence[int]) -> Whitening:
    """Read the whitening of images of a shape C, H, W, bit for bit.

    Raises:
        ValueError, ArrowException: it is not one for such images, or cannot be undone.
    """
    size = math.prod(image_shape)
    if len(table) != size or size > MOST_NUMBERS:
        raise ValueError(f"whitening.arrow has {len(table)} rows, not {size} (at most {MOST_NUMBERS})")
    mean = numbers(column(table, "mean", pa.float32())).view(*image_shape)
    matrix = numbers(column(table, "row", pa.list_(pa.float32(), size)).flatten()).view(size, size)
    if not mean.isfinite().all() or not matrix.isfinite().all():
        raise ValueError("whitening.arrow has a number that is not finite")
    if not torch.allclose(matrix, matrix.T) or torch.linalg.cholesky_ex(matrix.double()).info.item():
        raise ValueError("whitening.arrow has a matrix that is not symmetric and positive definite")
    return Whitening(mean, matrix)
