"""A distilled set on disk or in an object store: a folder of Arrow files and a manifest.

    images.arrow    one row for each image: step, label, soft_label [K], image [C, H, W] float32 in normalised space
    schedule.arrow  one row for each gradient step: epoch, step, learning_rate, and raw_rate, whose softplus that is
    weights.arrow   the initial weights, where they are fixed: name, shape, values
    whitening.arrow with data.zca, a row for each number of an image: mean (of the mean image), row (of the matrix)
    README.md       for Hugging Face datasets, which would take all Arrow files of a folder for parts of one table
    manifest.json   what it is and the sha256 of each Arrow file; written last: without it there is no artifact

Any Arrow reader opens it, see `raydistill.store.arrow`. Nothing in it is pickled, and nothing is used before its
sha256 was checked.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.fs
import torch
from pydantic import Field
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import Recipe, ScheduleRecipe, recipe_of
from raydistill.config.settings import validated
from raydistill.data.whitening import Whitening, from_pixels, to_pixels
from raydistill.method import DistilledSet
from raydistill.method.losses import Loss
from raydistill.method.recipe import check_recipe, loss_of, steps_on, torch_optimizer
from raydistill.store.arrow import set_from_tables, to_tables, weights_from_table
from raydistill.store.ipc import from_ipc, to_ipc
from raydistill.store.manifest import MANIFEST, Manifest
from raydistill.store.whitening_table import whitening_from_table, whitening_table
from raydistill.system.errors import UserError
from raydistill.system.storage import open_place, read_file, replace_file, to_json, whole_folder

SUFFIX = ".distilled"
WHITENING = "whitening.arrow"
CARD = """---
configs:
- {config_name: images, data_files: images.arrow, default: true}
- {config_name: schedule, data_files: schedule.arrow}
---
A data set that raydistill distilled; `raydistill.load` reads it. manifest.json says how it was made and by which
recipe networks are trained on it.
"""


class ArtifactManifest(Manifest):
    """The content of manifest.json; `mean` and `std` of each channel give pixels 0..1: image * std + mean.

    Where there is a whitening, images are first brought back from it.
    """

    formats = (3,)

    recipe: dict[str, Any]
    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    metrics: dict[str, float | int | None]


@dataclass(frozen=True)
class Artifact:
    """A distilled set with all that is needed to use it.

    `weights` holds the initial weights by name where the set was made for fixed ones; `metrics` what was measured
    (accuracies as fractions); `provenance` versions, seed, data fingerprint and, in a sweep, the trial. Networks are
    trained on the set by its `recipe`. `whitening` says how images were whitened, if they were.
    """

    distilled: DistilledSet
    config: DistillConfig
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    weights: dict[str, Tensor] | None = None
    metrics: dict[str, float | int | None] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=ScheduleRecipe)
    whitening: Whitening | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.distilled.images.shape[2:]
        return channels, height, width

    def batches(self, seed: int = 0) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield the steps of the recipe in order: images [B, C, H, W], labels [B, K] and the learning rate.

        The seed decides which images are in a batch, where the recipe has batches.
        """
        return steps_on(self.recipe, self.distilled, seed)

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Return torch's optimizer of the recipe; each step should set the learning rate in its `param_groups`."""
        return torch_optimizer(self.recipe, parameters)

    @property
    def loss(self) -> Loss:
        """The loss of the recipe, a function of logits [B, K] and labels [B, K]."""
        return loss_of(self.recipe)

    def pixels(self) -> Tensor:
        """Return the images [S, B, C, H, W] in pixel space: 0 is black, 1 white, and learned ones exceed both."""
        return to_pixels(self.distilled.images, self.mean, self.std, self.whitening)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return images [..., C, H, W] of pixels in 0..1 as networks that were trained on the set must get them."""
        return from_pixels(pixels, self.mean, self.std, self.whitening)


def save(artifact: Artifact, path: str | Path) -> None:
    """Write an artifact whole or not at all; on a local disk an older one stays until the new one is whole.

    Args:
        artifact: what to write.
        path: a folder, or a URI of pyarrow.fs (s3://..., gs://...).

    Raises:
        UserError: the place cannot be written to.
    """
    filesystem, target = open_place(path)
    files = _files(artifact)
    try:
        if isinstance(filesystem, pa.fs.LocalFileSystem):
            with whole_folder(target) as folder:
                for name, data in files.items():
                    replace_file(filesystem, f"{folder}/{name}", data)
            return
        filesystem.create_dir(target, recursive=True)
        if _exists(filesystem, f"{target}/{MANIFEST}"):
            filesystem.delete_file(f"{target}/{MANIFEST}")  # From here to the new manifest there is no artifact.
        for name, data in files.items():
            replace_file(filesystem, f"{target}/{name}", data)
    except OSError as error:
        raise UserError(f"{path}: the artifact cannot be written: {error.strerror or error}") from error


def _files(artifact: Artifact) -> dict[str, bytes]:
    """Return the content of an artifact's files by name, the manifest last."""
    tables = to_tables(artifact.distilled, artifact.weights, artifact.class_names)
    if artifact.whitening is not None:
        tables[WHITENING] = whitening_table(artifact.whitening)
    files = {name: to_ipc(table) for name, table in tables.items()}
    manifest = ArtifactManifest(
        format_version=ArtifactManifest.formats[-1],
        config=artifact.config.model_dump(mode="json"),
        class_names=artifact.class_names,
        mean=tuple(artifact.mean.tolist()),
        std=tuple(artifact.std.tolist()),
        recipe=artifact.recipe.model_dump(mode="json"),
        metrics={k: v if v is None or math.isfinite(v) else None for k, v in artifact.metrics.items()},
        provenance=artifact.provenance,
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    return {**files, "README.md": CARD.encode(), MANIFEST: to_json(manifest.model_dump(mode="json"))}


def load(path: str | Path) -> Artifact:
    """Read an artifact, on the CPU.

    Raises:
        UserError: there is none, it is of a later version, or a file is missing, changed or makes no sense.
    """
    filesystem, target = open_place(path)
    raw = _read(filesystem, target, MANIFEST, path)
    try:
        manifest = ArtifactManifest.parse(raw)
    except ValueError as error:
        raise UserError(f"{path}/{MANIFEST}: not the manifest of an artifact: {error}") from error
    mean, std = torch.tensor(manifest.mean), torch.tensor(manifest.std)
    if len(mean) != len(std) or not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise UserError(f"{path}/{MANIFEST}: mean and std are not a finite number for each channel")
    config = validated(DistillConfig, manifest.config, f"{path}/{MANIFEST}: config: ")
    names = ["images.arrow", "schedule.arrow"]
    names += ["weights.arrow"] if "weights.arrow" in manifest.sha256 else []
    names += [WHITENING] if config.data.zca is not None else []
    tables = {}
    for name in names:
        data = _read(filesystem, target, name, path)
        if hashlib.sha256(data).hexdigest() != manifest.sha256.get(name):
            raise UserError(f"{path}/{name}: was changed after it was written (its sha256 is not the manifest's)")
        tables[name] = from_ipc(data, f"{path}/{name}")
    recipe = recipe_of(manifest.recipe, f"{path}/{MANIFEST}: ")
    try:
        distilled = set_from_tables(
            tables["images.arrow"],
            tables["schedule.arrow"],
            steps=config.steps,
            epochs=config.passes,
            batch=config.images.per_step or config.images_per_class * len(manifest.class_names),
            classes=len(manifest.class_names),
            channels=len(manifest.mean),
        )
        weights = weights_from_table(tables["weights.arrow"]) if "weights.arrow" in tables else None
        shape = distilled.images.shape[2:]
        whitening = whitening_from_table(tables[WHITENING], shape) if WHITENING in tables else None
    except (ValueError, TypeError, RuntimeError, pa.ArrowException) as error:
        raise UserError(f"{path}: its files do not make a distilled set: {' '.join(str(error).split())}") from error
    check_recipe(recipe, distilled)
    return Artifact(
        distilled=distilled,
        recipe=recipe,
        config=config,
        class_names=manifest.class_names,
        mean=mean,
        std=std,
        whitening=whitening,
        weights=weights,
        metrics=manifest.metrics,
        provenance=manifest.provenance,
    )


def _exists(filesystem: pa.fs.FileSystem, file: str) -> bool:
    return bool(filesystem.get_file_info(file).type == pa.fs.FileType.File)


def _read(filesystem: pa.fs.FileSystem, target: str, name: str, path: str | Path) -> bytes:
    try:
        return read_file(filesystem, f"{target}/{name}")
    except OSError as error:
        if name == MANIFEST:
            raise UserError(f"{path}: is not a distilled set (it has no {MANIFEST})") from error
        raise UserError(f"{path}/{name}: is missing or cannot be read") from error
