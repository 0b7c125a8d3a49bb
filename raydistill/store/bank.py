"""A bank of pretrained networks on disk or in an object store: a folder of Arrow files and a manifest.

    networks-00000.arrow ...   one row for each network: weights [W] (all parameters in the network's order),
                               val_accuracy, test_accuracy; a file for each chunk of networks that were trained at once
    manifest.json              what they are and the sha256 of each file; written last: without it there is no bank

Any Arrow reader opens it; nothing in it is pickled.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, StringConstraints, field_validator
from torch import Tensor

from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import flat
from raydistill.data import Dataset
from raydistill.networks import Network
from raydistill.store.arrow import column, nested
from raydistill.store.ipc import from_ipc, to_ipc
from raydistill.store.manifest import MANIFEST, Manifest
from raydistill.system.device import sharing_tensor
from raydistill.system.errors import UserError
from raydistill.system.storage import open_place, read_file, to_json, whole_file


class BankManifest(Manifest):
    """The content of manifest.json; `shapes` has the parameters in the order of a row's weights."""

    formats = (1,)

    image_shape: tuple[int, int, int]
    metrics: dict[str, float | int]
    shapes: Annotated[dict[str, tuple[Annotated[int, Field(ge=1)], ...]], Field(min_length=1)]
    sha256: Annotated[
        dict[Annotated[str, StringConstraints(pattern=r"^networks-\d+\.arrow$")], str], Field(min_length=1)
    ]

    @field_validator("metrics")
    @classmethod
    def _measured(cls, metrics: dict[str, float | int]) -> dict[str, float | int]:
        if missing := {"nets", "test_accuracy", "test_accuracy_std"} - set(metrics):
            raise ValueError(f"lacks {', '.join(sorted(missing))}")
        return metrics


@dataclass(frozen=True)
class Bank:
    """Pretrained networks [M, W], float32, and how they were made."""

    networks: Tensor
    manifest: BankManifest
    fingerprint: str
    """The sha256 of the manifest, which has those of the files, and so stands for everything."""

    def to(self, device: torch.device) -> "Bank":
        """Return the same bank on another device."""
        return replace(self, networks=self.networks.to(device))

    def to_numpy(self) -> dict[str, Any]:
        """Return plain values and an array, which a Ray object store shares between processes without copies."""
        return {
            "networks": self.networks.cpu().numpy(),
            "manifest": self.manifest.model_dump(mode="json"),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_numpy(cls, values: dict[str, Any]) -> "Bank":
        """Undo `to_numpy`; the tensor shares the array's memory, which may be read-only: nothing here writes to it."""
        return cls(
            sharing_tensor(values["networks"]), BankManifest.model_validate(values["manifest"]), values["fingerprint"]
        )


def bank_table(networks: Tensor, val_accuracies: Tensor, test_accuracies: Tensor) -> pa.Table:
    """Return the table of one file: networks [N, W] with their accuracies [N]."""
    weights = networks.detach().float().cpu().numpy()
    return pa.table(
        {
            "weights": nested(weights),
            "val_accuracy": val_accuracies.cpu().numpy(),
            "test_accuracy": test_accuracies.cpu().numpy(),
        }
    )


def network_files(folder: Path, chunk: int) -> Path:
    """Return the path of the file of a chunk of networks."""
    return folder / f"networks-{chunk:05d}.arrow"


def write_bank_file(path: Path, table: pa.Table) -> None:
    """Write one file of networks, whole or not at all."""
    with whole_file(path) as stream:
        stream.write(to_ipc(table))


def write_manifest(
    folder: Path, config: PretrainConfig, data: Dataset, network: Network, provenance: dict[str, Any]
) -> BankManifest:
    """Write the manifest that makes the files of networks in `folder` a bank."""
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("networks-*.arrow"))}
    tables = [from_ipc(data, name) for name, data in files.items()]
    metrics: dict[str, float | int] = {"nets": sum(len(table) for table in tables)}
    for name in ("val_accuracy", "test_accuracy"):
        values = np.concatenate([table[name].to_numpy() for table in tables])
        metrics |= {name: float(values.mean()), f"{name}_std": float(values.std(ddof=1)) if len(values) > 1 else 0.0}
    manifest = BankManifest(
        format_version=BankManifest.formats[-1],
        config=config.model_dump(mode="json"),
        class_names=data.class_names,
        image_shape=data.image_shape,
        shapes=network.shapes,
        metrics=metrics,
        provenance=provenance,
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    with whole_file(folder / MANIFEST) as stream:
        stream.write(to_json(manifest.model_dump(mode="json")))
    return manifest


def read_manifest(path: str | Path) -> tuple[BankManifest, str]:
    """Read the manifest of a bank, and return it with its sha256.

    Raises:
        UserError: there is no bank, or one of a later version.
    """
    filesystem, place = open_place(path)
    try:
        raw = read_file(filesystem, f"{place}/{MANIFEST}")
    except OSError as error:
        raise UserError(
            f"bank={path}: is no bank of networks (it has no {MANIFEST}); raydistill pretrain makes one"
        ) from error
    try:
        manifest = BankManifest.parse(raw)
    except ValueError as error:
        raise UserError(f"bank={path}: its {MANIFEST} is not that of a bank of networks: {error}") from error
    return manifest, hashlib.sha256(raw).hexdigest()


def load_bank(path: str | Path) -> Bank:
    """Read a bank, on the CPU.

    Raises:
        UserError: there is none, or a file is missing, changed or makes no sense.
    """
    manifest, fingerprint = read_manifest(path)
    filesystem, place = open_place(path)
    size = sum(math.prod(shape) for shape in manifest.shapes.values())
    parts = []
    for name, digest in manifest.sha256.items():
        try:
            data = read_file(filesystem, f"{place}/{name}")
        except OSError as error:
            raise UserError(f"bank={path}: its file {name} is missing or cannot be read") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise UserError(f"bank={path}: its file {name} was changed after it was written")
        try:
            networks = column(from_ipc(data, f"bank={path}: {name}"), "weights", pa.list_(pa.float32(), size))
            parts.append(networks.flatten().to_numpy().reshape(-1, size))
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise UserError(f"bank={path}: its file {name} does not hold networks of {size} weights") from error
    return Bank(torch.from_numpy(np.concatenate(parts)), manifest, fingerprint)


def adapted(config: DistillConfig) -> DistillConfig:
    """Return the config with the size and channels of images that its bank was trained on, unless it sets them itself.

    So networks of USPS (16 x 16), MNIST (28 x 28) and SVHN (32 x 32, colour) can be adapted to each other's images.

    Raises:
        UserError: there is no such bank, or its images are of an impossible size.
    """
    if config.objective.name != "adapt" or config.bank_folder is None:
        return config
    channels, size, _ = read_manifest(config.bank_folder)[0].image_shape
    update = {"data.image_size": config.data.image_size or size, "data.channels": config.data.channels or channels}
    return config.changed(update, f"bank={config.bank_folder}: ")


def check_bank(
    bank: BankManifest,
    config: DistillConfig,
    class_names: tuple[str, ...],
    image_shape: tuple[int, int, int],
    network: Network,
) -> None:
    """Raise UserError unless the bank's networks are of the config's kind, and were trained on these classes."""
    if not same_classes(bank.class_names, class_names):
        theirs, ours = (", ".join(names[:12]) for names in (bank.class_names, class_names))
        raise UserError(
            f"dataset={config.dataset} has the classes {ours}, but bank={config.bank} was trained on "
            f"{bank.config.get('dataset')}, with {theirs}"
        )
    whitened = flat(bank.config).get("data.zca")
    if whitened != config.data.zca:
        raise UserError(
            f"data.zca={config.data.zca}: the networks of bank={config.bank} were trained with data.zca={whitened}; "
            "set the same"
        )
    if bank.shapes != network.shapes:
        made, shape = flat(bank.config).get("network.name"), "x".join(str(n) for n in bank.image_shape)
        wanted = "x".join(str(n) for n in image_shape)
        raise UserError(
            f"bank={config.bank} was made for network={made} on images of {shape}, not for "
            f"network={config.network.name} on {wanted}; a bank serves the network it was made with (and the same "
            "network.width, network.depth, data.image_size and data.channels)"
        )


def same_classes(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether these name the same classes in the same order; "3" and "3 - three" are the same."""

    def short(names: tuple[str, ...]) -> list[str]:
        return [name.split(" - ")[0].strip().lower() for name in names]

    return short(one) == short(other)
