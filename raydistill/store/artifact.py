"""A distilled set on disk or in an object store: a folder of Arrow files and a manifest.

    images.arrow    one row an image: step, label, soft_label [K], image [C, H, W] float32 in normalised space
    schedule.arrow  one row a gradient step: epoch, step, learning_rate, and raw_rate, whose softplus that is
    weights.arrow   the initial weights, where they are fixed: name, shape, values
    README.md       for Hugging Face datasets, which else take all Arrow files of a folder for parts of one table
    manifest.json   what it is and the sha256 of each Arrow file; written last: without it there is no artifact

Any Arrow reader opens it, see `raydistill.store.arrow`. Nothing in it is pickled, and nothing is believed before its
sum is right. Format 1 had images as fixed-shape tensors, and no raw_rate.
"""

import hashlib
import math
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.fs
import torch
from pydantic import Field
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.method import DistilledSet
from raydistill.store.arrow import set_from_tables, to_tables, weights_from_table
from raydistill.store.ipc import from_ipc, to_ipc
from raydistill.store.manifest import Manifest
from raydistill.system.errors import UserError
from raydistill.system.storage import open_place, read_file, to_json, write_file

SUFFIX = ".distilled"
CARD = """---
configs:
- {config_name: images, data_files: images.arrow, default: true}
- {config_name: schedule, data_files: schedule.arrow}
---
A data set that raydistill distilled; `raydistill.load` reads it, manifest.json says how it was made.
"""


class ArtifactManifest(Manifest):
    """manifest.json. `mean` and `std`, one a channel, turn images into pixels 0..1: image * std + mean."""

    formats = (1, 2)

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    metrics: dict[str, float | int | None]


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
        for name, table in to_tables(artifact.distilled, artifact.weights, artifact.class_names).items():
            data = to_ipc(table)
            sums[name] = hashlib.sha256(data).hexdigest()
            write_file(filesystem, f"{place}/{name}", data)
        write_file(filesystem, f"{place}/README.md", CARD.encode())
        manifest = ArtifactManifest(
            format_version=ArtifactManifest.formats[-1],
            config=artifact.config.model_dump(mode="json"),
            class_names=artifact.class_names,
            mean=tuple(artifact.mean.tolist()),
            std=tuple(artifact.std.tolist()),
            metrics={k: v if v is None or math.isfinite(v) else None for k, v in artifact.metrics.items()},
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
        manifest = ArtifactManifest.parse(raw)
    except ValueError as error:
        raise UserError(f"{path}/manifest.json: not the manifest of an artifact: {error}") from error
    mean, std = torch.tensor(manifest.mean), torch.tensor(manifest.std)
    if len(mean) != len(std) or not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise UserError(f"{path}/manifest.json: mean and std are not a finite number for each channel")
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
            batch=config.images.per_step or config.images_per_class * len(manifest.class_names),
            classes=len(manifest.class_names),
            channels=len(manifest.mean),
        )
        weights = weights_from_table(tables["weights.arrow"]) if "weights.arrow" in tables else None
    except (ValueError, TypeError, RuntimeError, pa.ArrowException) as error:
        raise UserError(f"{path}: its files do not make a distilled set: {' '.join(str(error).split())}") from error
    return Artifact(
        distilled=distilled,
        config=config,
        class_names=manifest.class_names,
        mean=mean,
        std=std,
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
