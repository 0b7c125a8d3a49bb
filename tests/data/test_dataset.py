"""Splits, normalisation, and the digits that are always there."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import validated
from raydistill.data import Dataset, Split, load_dataset
from raydistill.data import digits as digits_module
from raydistill.data.raw import Part, assembled
from raydistill.method.rng import named_generator
from raydistill.system.errors import UserError


@pytest.mark.parametrize("file", [digits_module.FILE, "not/there"])
def test_digits_are_scikit_learns(file, monkeypatch):
    """They are read from its file, and by its own function should the file be elsewhere one day."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    monkeypatch.setattr(digits_module, "FILE", file)
    ours = digits_module.read_digits(DistillConfig(), Path())
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    theirs = assembled([Part(images, labels)], ours.class_names, "digits")
    for mine, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert np.array_equal(mine.images, other.images)
        assert np.array_equal(mine.labels, other.labels)


def test_digits_are_read_without_scikit_learn():
    """Its import takes as long as half of the first run on digits."""
    read = "import sys; from raydistill.data import load_dataset; from raydistill.config import distill_config as c; "
    loaded = "load_dataset(c.DistillConfig()); sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", read + loaded], check=True)


def test_normalised_by_the_training_split(digits):
    assert digits.train.images[:].mean().item() == pytest.approx(0, abs=1e-5)
    assert digits.train.images[:].std().item() == pytest.approx(1, abs=1e-4)


def test_splits_are_stratified_disjoint_and_seeded(digits):
    shares = digits.val.labels.bincount() / digits.train.labels.bincount()
    assert shares.min() > 0.09
    assert shares.max() < 0.13
    rows = [{tuple(i.flatten().tolist()) for i in s.images[:]} for s in (digits.train, digits.val, digits.test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]
    again = load_dataset(DistillConfig(seed=5))
    assert torch.equal(again.val.images[:], digits.val.images[:])  # the run's seed does not matter
    other = load_dataset(validated(DistillConfig, {"data": {"split_seed": 1}}))
    assert not torch.equal(other.val.labels, digits.val.labels)
    assert torch.equal(other.test.labels, digits.test.labels)  # and the test set never changes


def test_through_numpy_and_back_shares_memory(digits):
    values = digits.to_numpy()
    values["train_images"].setflags(write=False)  # as arrays from the object store are
    assert values["train_images"].dtype == np.uint8  # a quarter of the store
    back = Dataset.from_numpy(values)
    assert torch.equal(back.train.images[:], digits.train.images[:])
    assert torch.equal(back.test.labels, digits.test.labels)
    assert back.train.images.levels.data_ptr() == values["train_images"].ctypes.data
    assert (back.fingerprint, back.class_names) == (digits.fingerprint, digits.class_names)
    numbers = replace(digits, test=Split(digits.test.images[:], digits.test.labels))
    assert torch.equal(Dataset.from_numpy(numbers.to_numpy()).test.images, digits.test.images[:])


def test_image_size_resizes():
    data = load_dataset(validated(DistillConfig, {"data": {"image_size": 12}}))
    assert data.image_shape == (1, 12, 12)


def test_mnist_through_torchvision(real_data):
    data = load_dataset(DistillConfig(dataset="mnist"), real_data)
    assert (len(data.train), len(data.val), len(data.test)) == (54000, 6000, 10000)
    assert data.image_shape == (1, 28, 28)
    assert data.mean.item() == pytest.approx(0.1307, abs=2e-3)  # the constants everybody uses
    assert data.std.item() == pytest.approx(0.3081, abs=2e-3)


@pytest.mark.slow
def test_usps_and_cifar10_parquet(real_data):
    usps = load_dataset(DistillConfig(dataset=f"parquet:{real_data / 'usps'}"))
    assert (len(usps.train) + len(usps.val), len(usps.test), usps.image_shape) == (7291, 2007, (1, 16, 16))
    cifar = load_dataset(
        validated(
            DistillConfig,
            {
                "dataset": f"parquet:{real_data / 'cifar10' / 'test-00000-of-00001.parquet'}",
                "data": {"val_fraction": 0.2},
            },
        )
    )
    assert cifar.class_names[:2] == ("airplane", "automobile")
    assert (len(cifar.train), len(cifar.val), len(cifar.test)) == (6400, 1600, 2000)  # one file: a fifth is the test


def test_fashionmnist_is_read_from_files_of_its_format(tmp_path):
    """The four idx files as torchvision expects them, with 40 + 20 images of our own."""
    import struct

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    data = load_dataset(validated(DistillConfig, {"dataset": "fashionmnist", "data": {"val_fraction": 0.25}}), tmp_path)
    assert data.class_names[0] == "T-shirt/top"
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 20)
    pixels = (data.test.images[3] * data.std + data.mean) * 255
    assert torch.equal(pixels.round().to(torch.uint8)[0], torch.from_numpy(images[3]))
    for labels in (bytes(19), bytes([10] * 20)):  # one too few, one too many classes
        (raw / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels)
        with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: does not hold one of 10 classes for each image"):
            load_dataset(DistillConfig(dataset="fashionmnist"), tmp_path)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"dataset": "mnits"}, ["dataset=mnits", "digits, mnist"]),
        ({"dataset": "parquet:"}, ["parquet:PATH"]),
        ({"dataset": "parquet:/nowhere/x.parquet"}, ["/nowhere/x.parquet", "no such file"]),
        ({"dataset": "digits", "data.label_column": "y"}, ["label_column", "parquet"]),
        ({"dataset": "digits", "data.val_fraction": 0.0001}, ["data.val_fraction=0.0001"]),
    ],
)
def test_what_cannot_be_read_is_said(update, words):
    with pytest.raises(UserError) as error:
        load_dataset(DistillConfig(**update))
    for word in words:
        assert word in str(error.value)


def test_balanced_batches_have_each_class_equally_often_or_once_more(digits):
    generator = named_generator(0, "batches")
    more = torch.zeros(10)
    for count in (100, 57, 7):
        for _ in range(40):
            images, labels = digits.train.sample(count, generator, balanced=True)
            of_each = labels.bincount(minlength=10)
            assert set(of_each.tolist()) <= {count // 10, -(-count // 10)}
            more += of_each - count // 10
    assert more.min() > 0.5 * more.mean()  # all classes take turns
    known = {
        image.numpy().tobytes(): label for image, label in zip(digits.train.images[:], digits.train.labels, strict=True)
    }
    assert all(known[image.numpy().tobytes()] == label for image, label in zip(images, labels, strict=True))


def test_balanced_batches_draw_all_images_of_a_class_alike():
    labels = torch.tensor([2, 0, 2, 2, 0, 2])  # no image is of class 1
    split = Split(torch.arange(6.0).view(6, 1, 1, 1), labels)
    images, drawn = split.sample(12000, named_generator(0, "x"), balanced=True)
    counts = images.flatten().long().bincount(minlength=6)
    expected = torch.tensor([1500.0, 3000, 1500, 1500, 3000, 1500])
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()
    assert torch.equal(labels[images.flatten().long()], drawn)
    again, other = (split.sample(9, named_generator(seed, "x"), balanced=True)[0] for seed in (0, 1))
    assert torch.equal(again, split.sample(9, named_generator(0, "x"), balanced=True)[0])
    assert not torch.equal(again, other)


def test_an_attack_and_a_bank_have_no_balanced_batches():
    attack = {"objective": {"name": "attack", "attacked": 0, "target": 1}, "weights": "fixed_pretrained", "bank": "b"}
    with pytest.raises(UserError, match=r"^data\.balanced: with objective=attack"):
        validated(DistillConfig, {"data.balanced": True, **attack})
    with pytest.raises(UserError, match=r"^data\.balanced: a bank's networks see all"):
        validated(PretrainConfig, {"data.balanced": True})
