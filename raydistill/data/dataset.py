"""A real data set: split, ready on the device, normalised as it is taken."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydistill.config.data_settings import DataSettings
from raydistill.data.images import in_parts
from raydistill.data.overlaps import tell_overlaps
from raydistill.data.pixels import Index, Pixels
from raydistill.data.raw import Part, RawData
from raydistill.data.sources import read_source
from raydistill.data.splits import stratified
from raydistill.data.whitening import Whitening, to_pixels
from raydistill.system.device import sharing_tensor
from raydistill.system.errors import UserError

ABOUT = ("name", "class_names", "fingerprint", "encoded")  # The fields of a Dataset that are plain values.


@dataclass(frozen=True)
class Split:
    """Images [M, C, H, W] and their classes [M], int64, on one device.

    An index gives float32 images in normalised space; `images[:]` gives all of them. `load_dataset` keeps the images as
    bytes (`Pixels`); tests may use a plain tensor.
    """

    images: Tensor | Pixels
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, count: int, generator: torch.Generator, balanced: bool = False) -> tuple[Tensor, Tensor]:
        """Draw `count` examples with replacement, by a generator on the split's device.

        Where they are `balanced`, each class is drawn equally often, or once more if the draw says so.
        """
        if balanced:
            index = self._balanced_index(count, generator)
        else:
            index = torch.randint(len(self), (count,), generator=generator, device=self.labels.device)
        return self.images[index], self.labels[index]

    def _balanced_index(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the numbers [count] of examples, of each class in turn; which classes come first is drawn, too."""
        order, firsts, counts = self._by_class
        device = self.labels.device
        turn = torch.rand(len(counts), generator=generator, device=device).argsort()
        classes = turn[torch.arange(count, device=device) % len(counts)]
        draws = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        return order[firsts[classes] + (draws * counts[classes]).long()]

    @cached_property
    def _by_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers of all examples in the order of their classes; where each class begins, and its size [K]."""
        sizes = self.labels.bincount()
        sizes = sizes[sizes > 0]
        return self.labels.argsort(stable=True), sizes.cumsum(0) - sizes, sizes

    def of_classes(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw images [*classes.shape, C, H, W] of the given classes, without replacement where there are enough.

        A class without any gets the mean colour, 0.
        """
        images = self.images[:0].new_zeros(*classes.shape, *self.images.shape[1:])
        for label in classes.unique():
            places = classes == label
            of_class = (self.labels == label).nonzero()[:, 0]
            order = torch.randperm(len(of_class), generator=generator, device=self.labels.device)
            count = int(places.sum())
            if len(order):
                order = order.repeat(-(-count // len(order)))[:count]
                images[places] = self.images[of_class[order]]
        return images

    def only(self, label: int) -> "Split":
        """Return the examples of one class."""
        return self.at(self.labels == label)

    def first(self, count: int) -> "Split":
        """Return the first `count` examples."""
        return self.at(slice(count))

    def at(self, index: Index) -> "Split":
        """Return the examples at an index; bytes stay bytes."""
        images = self.images.at(index) if isinstance(self.images, Pixels) else self.images[index]
        return Split(images, self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A real data set: train, val (held out of the training data) and test.

    `mean` and `std` [C] turn normalised images back into pixels in 0..1: `pixels = images * std + mean`. With data.zca
    the images are also whitened; then they are kept as float32, which takes four times the memory of bytes.
    `fingerprint` is a sha256 over all pixels and labels as they were read, `encoded` one over the files that they were
    decoded from, where they were: other versions of a decoder give other pixels of the same data.
    """

    name: str
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    fingerprint: str
    train: Split
    val: Split
    test: Split
    encoded: str | None = None
    whitening: Whitening | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Return images [..., C, H, W], as networks see them, as pixels: 0 is black and 1 white."""
        return to_pixels(images, self.mean, self.std, self.whitening)

    def whitened(self, whitening: Whitening) -> "Dataset":
        """Return the same data on the CPU, normalised so far, in whitened space."""
        train, val, test = (
            Split(whitening.of_all(split.images), split.labels) for split in (self.train, self.val, self.test)
        )
        return replace(self, train=train, val=val, test=test, whitening=whitening)

    def to(self, device: torch.device) -> "Dataset":
        """Return the same data on another device."""
        train, val, test = (
            Split(split.images.to(device), split.labels.to(device)) for split in (self.train, self.val, self.test)
        )
        return replace(self, train=train, val=val, test=test)

    def to_numpy(self) -> dict[str, Any]:
        """Return everything as plain values and arrays, which Ray's object store shares between processes uncopied."""
        arrays: dict[str, np.ndarray] = {}
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            images = split.images.levels if isinstance(split.images, Pixels) else split.images
            arrays |= {f"{name}_images": images.cpu().numpy(), f"{name}_labels": split.labels.cpu().numpy()}
        if self.whitening is not None:
            arrays |= {"white_mean": self.whitening.mean.numpy(), "white_matrix": self.whitening.matrix.numpy()}
        about = {key: getattr(self, key) for key in ABOUT}
        return about | {"mean": self.mean.numpy(), "std": self.std.numpy()} | arrays

    @classmethod
    def from_numpy(cls, values: dict[str, Any]) -> "Dataset":
        """Invert `to_numpy`; share the arrays' memory, which may be read-only: nothing here writes to it."""
        tensors = {k: sharing_tensor(v) for k, v in values.items() if isinstance(v, np.ndarray)}
        mean, std = tensors["mean"], tensors["std"]

        def split(name: str) -> Split:
            images, labels = tensors[f"{name}_images"], tensors[f"{name}_labels"]
            return Split(Pixels(images, mean, std) if images.dtype == torch.uint8 else images, labels)

        about = {key: values[key] for key in ABOUT}
        if "white_mean" in tensors:
            about["whitening"] = Whitening(tensors["white_mean"], tensors["white_matrix"])
        return cls(mean=mean, std=std, train=split("train"), val=split("val"), test=split("test"), **about)


def load_dataset(
    config: DataSettings, data_dir: str | Path | None = None, whitening: Whitening | None = None
) -> Dataset:
    """Read and split `config.dataset`, on the CPU, and compute its normalisation and, with `data.zca`, its whitening.

    The validation split is drawn from the training data, by class, with `data.split_seed`; mean, std and whitening are
    those of the rest of the training data. The test data are the source's own.

    Args:
        config: the settings of the real data.
        data_dir: folder of downloaded data sets; by default RAYDISTILL_DATA, else ~/.cache/raydistill.
        whitening: with `data.zca`, use this one, as of an artifact, instead of that of the training data.

    Raises:
        UserError: the data are not there, not images with classes, or cannot be split or whitened.
    """
    raw = read_source(config, data_dir)
    try:
        train, val = stratified(raw.train.labels, config.data.val_fraction, config.data.split_seed)
    except ValueError as error:
        raise UserError(
            f"data.val_fraction={config.data.val_fraction}: {config.dataset} with {len(raw.train)} training images of "
            f"{len(raw.class_names)} classes cannot be split so: {error}"
        ) from error
    parts = {"train": raw.train.at(train), "validation": raw.train.at(val), "test": raw.test}
    tell_overlaps(parts, config.dataset)
    mean, std = _channel_moments(parts["train"].images)
    train_split, val_split, test_split = (_split(part, mean, std) for part in parts.values())
    data = Dataset(
        name=config.dataset,
        class_names=raw.class_names,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(raw),
        train=train_split,
        val=val_split,
        test=test_split,
        encoded=raw.encoded,
    )
    if config.data.zca is None:
        return data
    return data.whitened(whitening or Whitening.of(data.train.images, config.data.zca))


def _channel_moments(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of each channel [C], in units of 0..1, of uint8 images [M, C, H, W]."""
    levels = np.arange(256) / 255  # A histogram gives exact moments without a float copy of the data.
    counts = np.zeros((images.shape[1], 256), np.int64)
    for some in in_parts(images):  # bincount makes eight bytes of one, so it takes a part at a time.
        counts += np.stack([np.bincount(some[:, c].ravel(), minlength=256) for c in range(images.shape[1])])
    mean = counts @ levels / counts.sum(1)
    variance = counts @ levels**2 / counts.sum(1) - mean**2
    std = np.sqrt(np.maximum(variance, 1e-8))
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def _split(part: Part, mean: Tensor, std: Tensor) -> Split:
    return Split(Pixels(sharing_tensor(part.images), mean, std), torch.from_numpy(part.labels).long())


def _fingerprint(raw: RawData) -> str:
    digest = hashlib.sha256()
    for array in (raw.train.images, raw.train.labels, raw.test.images, raw.test.labels):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
