"""A distilled set on disk or in an object store: a folder of Arrow files and a manifest.

    images.arrow    one row an image: step, label, soft_label [K], image [C, H, W] float32 in normalised space
    schedule.arrow  one row a gradient step: epoch, step, learning_rate
    weights.arrow   the initial weights, where they are fixed: name, shape, values
    manifest.json   what it is and the sha256 of each file; written last: without it there is no artifact

Any Arrow reader opens it. Nothing in it is pickled, and nothing is believed before its sum is right.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from raydistill.config import DistillConfig, validated
from raydistill.errors import UserError
from raydistill.method import DistilledSet

FORMAT_VERSION = 1
SUFFIX = ".distilled"


class Manifest(BaseModel):
    """manifest.json. `mean` and `std`, one a channel, turn images into pixels 0..1: image * std + mean."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    config: dict[str, Any]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metrics: dict[str, float | int | None]
    provenance: dict[str, Any]
    sha256: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """A distilled set with all that one needs to use it.

    `weights` holds the initial weights by name where the set was made for fixed ones; `metrics` what was measured
    (accuracies as fractions); `provenance` versions, seed, data fingerprint and, in a sweep, the trial.
    """

    distilled: DistilledSet
    config: DistillConfig
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    weights: dict[str, Tensor] | None = None
    metrics: dict[str, float | int | None] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.distilled.images.shape[2:]
        return channels, height, width

    def pixels(self) -> Tensor:
        """The images [S, B, C, H, W] in pixel space, where 0 is black and 1 white; learned ones go beyond both."""
        return self.distilled.images * self.std[:, None, None] + self.mean[:, None, None]


def save(artifact: Artifact, path: str | Path) -> None:
    """Writes an artifact; at no moment is there a half-written one, on a local disk an old one stays till the new is whole.

    Args:
        artifact: what to write.
        path: a folder, or a URI of pyarrow.fs (s3://..., gs://...).

    Raises:
        UserError: the place cannot be written to.
    """
    filesystem, target = _filesystem(path)
    local = isinstance(filesystem, pa.fs.LocalFileSystem)
    place = f"{target}.partial-{os.getpid()}" if local else target
    try:
        filesystem.create_dir(place, recursive=True)
        if not local and _exists(filesystem, f"{target}/manifest.json"):
            filesystem.delete_file(f"{target}/manifest.json")  # from here to the new manifest there is no artifact
        sums = {}
        for name, table in _tables(artifact).items():
            data = _to_ipc(table)
            sums[name] = hashlib.sha256(data).hexdigest()
            _write(filesystem, f"{place}/{name}", data)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            config=artifact.config.model_dump(mode="json"),
            class_names=artifact.class_names,
            mean=tuple(artifact.mean.tolist()),
            std=tuple(artifact.std.tolist()),
            metrics=artifact.metrics,
            provenance=artifact.provenance,
            sha256=sums,
        )
        _write(filesystem, f"{place}/manifest.json", manifest.model_dump_json(indent=2).encode())
        if local:
            _swap(place, target)
    except OSError as error:
        if local:
            shutil.rmtree(place, ignore_errors=True)
        raise UserError(f"{path}: the artifact cannot be written: {error}") from error


def load(path: str | Path) -> Artifact:
    """Reads an artifact, on the CPU.

    Raises:
        UserError: there is none, it is of a later version, or a file is missing, changed or makes no sense.
    """
    filesystem, target = _filesystem(path)
    raw = _read(filesystem, target, "manifest.json", path)
    try:
        manifest = Manifest.model_validate(json.loads(raw))
    except (ValueError, ValidationError, RecursionError) as error:
        raise UserError(f"{path}/manifest.json: not the manifest of an artifact") from error
    if manifest.format_version != FORMAT_VERSION:
        raise UserError(
            f"{path}: is in format {manifest.format_version}; this raydistill reads format {FORMAT_VERSION}, upgrade it"
        )
    tables = {}
    for name in ("images.arrow", "schedule.arrow", "weights.arrow"):
        if name == "weights.arrow" and name not in manifest.sha256:
            continue
        data = _read(filesystem, target, name, path)
        if hashlib.sha256(data).hexdigest() != manifest.sha256.get(name):
            raise UserError(f"{path}/{name}: was changed after it was written (its sha256 is not the manifest's)")
        tables[name] = _from_ipc(data, f"{path}/{name}")
    config = validated(DistillConfig, manifest.config, f"{path}/manifest.json: config: ")
    try:
        distilled = _distilled_set(tables["images.arrow"], tables["schedule.arrow"], config, manifest)
        weights = _weights(tables["weights.arrow"]) if "weights.arrow" in tables else None
    except (KeyError, ValueError, TypeError, RuntimeError, pa.ArrowException) as error:
        raise UserError(f"{path}: its files do not make a distilled set: {' '.join(str(error).split())}") from error
    return Artifact(
        distilled=distilled,
        config=config,
        class_names=manifest.class_names,
        mean=torch.tensor(manifest.mean),
        std=torch.tensor(manifest.std),
        weights=weights,
        metrics=manifest.metrics,
        provenance=manifest.provenance,
    )


def _tables(artifact: Artifact) -> dict[str, pa.Table]:
    distilled = artifact.distilled.to(torch.device("cpu"))
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
    if artifact.weights is not None:
        names = list(artifact.weights)
        arrays = [artifact.weights[name].detach().float().cpu().numpy() for name in names]
        tables["weights.arrow"] = pa.table(
            {
                "name": pa.array(names, pa.string()),
                "shape": pa.array([list(array.shape) for array in arrays], pa.list_(pa.int32())),
                "values": pa.array([array.ravel() for array in arrays], pa.large_list(pa.float32())),
            }
        )
    return tables


def _distilled_set(images: pa.Table, schedule: pa.Table, config: DistillConfig, manifest: Manifest) -> DistilledSet:
    """The set in the tables; ValueError where they contradict the manifest."""
    pixels = torch.from_numpy(images["image"].combine_chunks().to_numpy_ndarray().copy())
    labels = torch.tensor(np.stack(images["soft_label"].to_numpy()), dtype=torch.float32)
    steps, classes, channels = config.steps, len(manifest.class_names), len(manifest.mean)
    if len(manifest.std) != channels:
        raise ValueError(f"mean is of {channels} channels and std of {len(manifest.std)}")
    if len(pixels) == 0 or len(pixels) % steps or images["step"].to_pylist() != _repeated(steps, len(pixels)):
        raise ValueError(f"images.arrow is not {steps} equal minibatches in order")
    if pixels.dtype != torch.float32 or pixels.dim() != 4 or pixels.shape[1] != channels:
        raise ValueError(f"images are {tuple(pixels.shape[1:])} of {pixels.dtype}, not float32 of {channels} x H x W")
    if labels.shape[1:] != (classes,):
        raise ValueError(f"soft labels are over {tuple(labels.shape[1:])} classes, not {classes}")
    rates = torch.tensor(schedule["learning_rate"].to_numpy(), dtype=torch.float32)
    order = list(zip(schedule["epoch"].to_pylist(), schedule["step"].to_pylist(), strict=True))
    if order != [(e, s) for e in range(config.epochs) for s in range(steps)]:
        raise ValueError(f"schedule.arrow is not {config.epochs} epochs of {steps} steps in order")
    if not (rates > 0).all() or not all(t.isfinite().all() for t in (pixels, labels, rates)):
        raise ValueError("an image, label or learning rate is not finite, or a learning rate is not positive")
    shaped = pixels.view(steps, -1, *pixels.shape[1:]), labels.view(steps, -1, classes)
    return DistilledSet.from_rates(*shaped, rates.view(config.epochs, steps))


def _repeated(steps: int, rows: int) -> list[int]:
    return [step for step in range(steps) for _ in range(rows // steps)]


def _weights(table: pa.Table) -> dict[str, Tensor]:
    columns = (table["name"].to_pylist(), table["shape"].to_pylist(), table["values"])
    return {
        name: torch.tensor(values.values.to_numpy(), dtype=torch.float32).view(shape)
        for name, shape, values in zip(*columns, strict=True)
    }


def _swap(new: str, target: str) -> None:
    """Puts folder `new` in the place of `target`."""
    old = f"{new}.old"
    if os.path.isdir(target):
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _filesystem(path: str | Path) -> tuple[pa.fs.FileSystem, str]:
    text = str(path).rstrip("/")
    try:
        if "://" in text:
            return pa.fs.FileSystem.from_uri(text)  # type: ignore[no-any-return]
        return pa.fs.LocalFileSystem(), os.path.abspath(text)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a place that can be opened: {error}") from error


def _exists(filesystem: pa.fs.FileSystem, file: str) -> bool:
    return bool(filesystem.get_file_info(file).type == pa.fs.FileType.File)


def _write(filesystem: pa.fs.FileSystem, file: str, data: bytes) -> None:
    with filesystem.open_output_stream(file) as stream:
        stream.write(data)


def _read(filesystem: pa.fs.FileSystem, target: str, name: str, path: str | Path) -> bytes:
    try:
        with filesystem.open_input_stream(f"{target}/{name}", compression=None) as stream:
            return stream.read()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException) as error:
        if name == "manifest.json":
            raise UserError(f"{path}: is not a distilled set (it has no manifest.json)") from error
        raise UserError(f"{path}/{name}: is missing or cannot be read") from error


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _from_ipc(data: bytes, name: str) -> pa.Table:
    try:
        table = pa.ipc.open_file(data).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: not an Arrow file: {str(error).splitlines()[0]}") from error
    return table
