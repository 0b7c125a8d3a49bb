"""A distilled set as Arrow tables of plain types.

An image is nested lists of fixed size, so that its type says its shape, and every reader knows the type: images of
28 x 28 grey pixels are `fixed_size_list<fixed_size_list<fixed_size_list<float>[28]>[28]>[1]`.
"""

import json
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raydistill.method import DistilledSet


def to_tables(
    distilled: DistilledSet, weights: dict[str, Tensor] | None, class_names: Sequence[str]
) -> dict[str, pa.Table]:
    """Return the tables of an artifact by file name; see `raydistill.store.artifact` for their columns."""
    distilled = distilled.to(torch.device("cpu"))
    images, labels, raw_rates, rates = (
        values.detach().float().contiguous().numpy()
        for values in (
            distilled.images.flatten(0, 1),
            distilled.labels.flatten(0, 1),
            distilled.raw_rates,
            distilled.learning_rates,
        )
    )
    steps, batch = distilled.images.shape[:2]
    epochs = len(rates)
    tables = {
        "images.arrow": pa.table(
            {
                "step": np.repeat(np.arange(steps, dtype=np.int32), batch),
                "label": labels.argmax(1).astype(np.int64),
                "soft_label": nested(labels),
                "image": nested(images),
            },
            metadata={"huggingface": json.dumps(hugging_face(images.shape[1:], class_names))},
        ),
        "schedule.arrow": pa.table(
            {
                "epoch": np.repeat(np.arange(epochs, dtype=np.int32), steps),
                "step": np.tile(np.arange(steps, dtype=np.int32), epochs),
                "learning_rate": rates.ravel(),
                "raw_rate": raw_rates.ravel(),
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


def nested(values: npt.NDArray[np.float32]) -> pa.Array:
    """Turn an array [N, ...] into N lists of fixed size, of lists of fixed size, and so on."""
    array = pa.array(values.ravel())
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def hugging_face(shape: Sequence[int], class_names: Sequence[str]) -> dict[str, object]:
    """Return what Hugging Face datasets reads of images.arrow: the columns' exact types, and the names of classes."""
    number: dict[str, object] = {"dtype": "float32", "_type": "Value"}
    image = number
    for size in reversed(shape):
        image = {"feature": image, "length": size, "_type": "List"}
    features = {
        "step": {"dtype": "int32", "_type": "Value"},
        "label": {"names": list(class_names), "_type": "ClassLabel"},
        "soft_label": {"feature": number, "length": len(class_names), "_type": "List"},
        "image": image,
    }
    return {"info": {"features": features}}


def set_from_tables(
    images: pa.Table, schedule: pa.Table, *, steps: int, epochs: int, batch: int, classes: int, channels: int
) -> DistilledSet:
    """Read the set in the tables, bit for bit.

    The expected sizes are compared with what the files hold before anything of those sizes is made.

    Raises:
        ValueError, ArrowException: the tables are not those of such a set.
    """
    order = column(images, "step", pa.int32())
    if len(order) != steps * batch or not _equal(order, np.repeat(np.arange(steps), batch)):
        raise ValueError(f"images.arrow is not {steps} minibatches of {batch} images in order")
    pixels = _pixels(images)
    if pixels.dim() != 4 or pixels.shape[1] != channels or not pixels.numel():
        raise ValueError(f"images are of shape {tuple(pixels.shape[1:])}, not {channels} x H x W")
    labels = numbers(column(images, "soft_label", pa.list_(pa.float32(), classes)).flatten()).view(-1, classes)
    if len(schedule) != epochs * steps or not (
        _equal(column(schedule, "epoch", pa.int32()), np.repeat(np.arange(epochs), steps))
        and _equal(column(schedule, "step", pa.int32()), np.tile(np.arange(steps), epochs))
    ):
        raise ValueError(f"schedule.arrow is not {epochs} epochs of {steps} steps in order")
    rates = numbers(column(schedule, "learning_rate", pa.float32()))
    if not (rates > 0).all() or not all(t.isfinite().all() for t in (pixels, labels, rates)):
        raise ValueError("an image, label or learning rate is not finite, or a learning rate is not positive")
    raw_rates = numbers(column(schedule, "raw_rate", pa.float32()))
    if not torch.allclose(torch.nn.functional.softplus(raw_rates), rates):
        raise ValueError("a learning rate is not the softplus of its raw_rate")
    shaped = pixels.view(steps, -1, *pixels.shape[1:]), labels.view(steps, -1, classes)
    return DistilledSet(*shaped, raw_rates.view(epochs, steps))


def weights_from_table(table: pa.Table) -> dict[str, Tensor]:
    """Read initial weights by name; errors as of `set_from_tables`."""
    names = column(table, "name", pa.string()).to_pylist()
    shapes = column(table, "shape", pa.list_(pa.int32())).to_pylist()
    values = [numbers(one.values) for one in column(table, "values", pa.large_list(pa.float32()))]
    if len(set(names)) < len(names) or any(math.prod(s) != len(v) for s, v in zip(shapes, values, strict=True)):
        raise ValueError("weights.arrow has a name twice, or a shape that its values do not fill")
    return {name: value.view(shape) for name, value, shape in zip(names, values, shapes, strict=True)}


def column(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """Return a column as one array.

    Raises:
        ValueError: there is none of that name and type, or it has gaps.
    """
    found = [field.type for field in table.schema if field.name == name]
    if found != [kind]:
        raise ValueError(f"column {name} is {' and '.join(map(str, found)) or 'missing'}, not {kind}")
    array = table[name].combine_chunks()
    if array.null_count:
        raise ValueError(f"column {name} has gaps")
    return array


def _pixels(images: pa.Table) -> Tensor:
    """Read the column of images as a tensor [N, ...]."""
    kind = next((field.type for field in images.schema if field.name == "image"), pa.null())
    values, shape = column(images, "image", kind), []
    while pa.types.is_fixed_size_list(values.type):
        shape.append(values.type.list_size)
        values = values.flatten()
    if values.type != pa.float32() or len(values) != len(images) * math.prod(shape):
        raise ValueError(f"images are {kind}, not float32 in nested lists of fixed size")
    return numbers(values).view(len(images), *shape)


def numbers(values: pa.Array) -> Tensor:
    """Copy numbers, which may be read-only, into a tensor; raise ArrowException where one is missing."""
    return torch.from_numpy(values.to_numpy().copy())


def _equal(values: pa.Array, expected: npt.NDArray[np.int64]) -> bool:
    return np.array_equal(values.to_numpy(), expected)
