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

import pyarrow as pa
import pyarrow.fs
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from raydistill.arrow import from_ipc, set_from_tables, to_ipc, to_tables, weights_from_table
from raydistill.config import DistillConfig
from raydistill.errors import UserError
from raydistill.method import DistilledSet
from raydistill.settings import validated
from raydistill.storage import open_place, read_file, to_json, write_file

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
    """Writes an artifact; never a half-written one; on a local disk an old one stays until the new is whole.

    Args:
        artifact: what to write.
        path: a folder, or a URI of pyarrow.fs (s3://..., gs://...).

    Raises:
        UserError: the place cannot be written to.
    """
    filesystem, target = open_place(path)
    local = isinstance(filesystem, pa.fs.LocalFileSystem)
    place = f"{target}.partial-{os.getpid()}" if local else target
    try:
        filesystem.create_dir(place, recursive=True)
        if not local and _exists(filesystem, f"{target}/manifest.json"):
            filesystem.delete_file(f"{target}/manifest.json")  # from here to the new manifest there is no artifact
        sums = {}
        for name, table in to_tables(artifact.distilled, artifact.weights).items():
            data = to_ipc(table)
            sums[name] = hashlib.sha256(data).hexdigest()
            write_file(filesystem, f"{place}/{name}", data)
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
        write_file(filesystem, f"{place}/manifest.json", to_json(manifest.model_dump(mode="json")))
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
    filesystem, target = open_place(path)
    raw = _read(filesystem, target, "manifest.json", path)
    try:
        manifest = Manifest.model_validate(json.loads(raw))
    except (ValueError, ValidationError, RecursionError) as error:
        raise UserError(f"{path}/manifest.json: not the manifest of an artifact") from error
    if len(manifest.mean) != len(manifest.std):
        raise UserError(f"{path}/manifest.json: mean is of {len(manifest.mean)} channels, std of {len(manifest.std)}")
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
        tables[name] = from_ipc(data, f"{path}/{name}")
    config = validated(DistillConfig, manifest.config, f"{path}/manifest.json: config: ")
    try:
        distilled = set_from_tables(
            tables["images.arrow"],
            tables["schedule.arrow"],
            steps=config.steps,
            epochs=config.epochs,
            classes=len(manifest.class_names),
            channels=len(manifest.mean),
        )
        weights = weights_from_table(tables["weights.arrow"]) if "weights.arrow" in tables else None
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


def _swap(new: str, target: str) -> None:
    """Puts folder `new` in the place of `target`."""
    old = f"{new}.old"
    if os.path.isdir(target):
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _exists(filesystem: pa.fs.FileSystem, file: str) -> bool:
    return bool(filesystem.get_file_info(file).type == pa.fs.FileType.File)


def _read(filesystem: pa.fs.FileSystem, target: str, name: str, path: str | Path) -> bytes:
    try:
        return read_file(filesystem, f"{target}/{name}")
    except OSError as error:
        if name == "manifest.json":
            raise UserError(f"{path}: is not a distilled set (it has no manifest.json)") from error
        raise UserError(f"{path}/{name}: is missing or cannot be read") from error
