"""A distilled set as Arrow tables, and tables as bytes."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raydistill.errors import UserError
from raydistill.method import DistilledSet


def to_tables(distilled: DistilledSet, weights: dict[str, Tensor] | None) -> dict[str, pa.Table]:
    """The tables of an artifact by file name; see `raydistill.artifact` for their columns."""
    distilled = distilled.to(torch.device("cpu"))
    images = distilled.images.detach().float().flatten(0, 1).contiguous().numpy()
    labels = distilled.labels.detach().float().flatten(0, 1).contiguous().numpy()
    steps, batch = distilled.images.shape[:2]
    rates = distilled.learning_rates.detach().float().numpy()
    epochs = len(rates)
    tables = {
        "images.arrow": pa.table(
            {
                "step": np.repeat(np.arange(steps, dtype=np.int32), batch),
                "label": labels.argmax(1).astype(np.int32),
                "soft_label": pa.FixedSizeListArray.from_arrays(labels.ravel(), labels.shape[1]),
                "image": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
            }
        ),
        "schedule.arrow": pa.table(
            {
                "epoch": np.repeat(np.arange(epochs, dtype=np.int32), steps),
                "step": np.tile(np.arange(steps, dtype=np.int32), epochs),
                "learning_rate": rates.ravel(),
            }
        ),
    }
    if weights is not None:
        names = list(weights)
        arrays = [weights[name].detach().float().cpu().numpy() for name in names]
        tables["weights.arrow"] = pa.table(
            {
                "name": pa.array(names, pa.string()),
                "shape": pa.array([list(array.shape) for array in arrays], pa.list_(pa.int32())),
                "values": pa.array([array.ravel() for array in arrays], pa.large_list(pa.float32())),
            }
        )
    return tables


def set_from_tables(
    images: pa.Table, schedule: pa.Table, *, steps: int, epochs: int, classes: int, channels: int
) -> DistilledSet:
    """The set in the tables.

    Raises:
        ValueError, KeyError, ArrowException: the tables are not those of such a set.
    """
    kind = images.schema.field("image").type
    if not isinstance(kind, pa.FixedShapeTensorType) or kind.value_type != pa.float32():
        raise ValueError(f"images are {kind}, not float32 tensors")
    pixels = torch.from_numpy(images["image"].combine_chunks().to_numpy_ndarray().copy())
    labels = torch.tensor(np.stack(images["soft_label"].to_numpy()), dtype=torch.float32)
    rows = len(pixels)
    if rows == 0 or rows % steps or images["step"].to_pylist() != np.repeat(range(steps), rows // steps).tolist():
        raise ValueError(f"images.arrow is not {steps} equal minibatches in order")
    if pixels.dim() != 4 or pixels.shape[1] != channels:
        raise ValueError(f"images are of shape {tuple(pixels.shape[1:])}, not {channels} x H x W")
    if labels.shape[1:] != (classes,):
        raise ValueError(f"soft labels are over {tuple(labels.shape[1:])} classes, not {classes}")
    rates = torch.tensor(schedule["learning_rate"].to_numpy(), dtype=torch.float32)
    order = list(zip(schedule["epoch"].to_pylist(), schedule["step"].to_pylist(), strict=True))
    if order != [(e, s) for e in range(epochs) for s in range(steps)]:
        raise ValueError(f"schedule.arrow is not {epochs} epochs of {steps} steps in order")
    if not (rates > 0).all() or not all(t.isfinite().all() for t in (pixels, labels, rates)):
        raise ValueError("an image, label or learning rate is not finite, or a learning rate is not positive")
    shaped = pixels.view(steps, -1, *pixels.shape[1:]), labels.view(steps, -1, classes)
    return DistilledSet.from_rates(*shaped, rates.view(epochs, steps))


def weights_from_table(table: pa.Table) -> dict[str, Tensor]:
    """Initial weights by name; errors as of `set_from_tables`."""
    columns = (table["name"].to_pylist(), table["shape"].to_pylist(), table["values"])
    return {
        name: torch.tensor(values.values.to_numpy(), dtype=torch.float32).view(shape)
        for name, shape, values in zip(*columns, strict=True)
    }


def to_ipc(table: pa.Table) -> bytes:
    """A table as the bytes of an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_ipc(data: bytes, name: str) -> pa.Table:
    """The table in the bytes of an Arrow IPC file.

    Raises:
        UserError: it is no such file; names it.
    """
    try:
        table = pa.ipc.open_file(data).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: not an Arrow file: {str(error).splitlines()[0]}") from error
    return table
