"""USPS, SVHN and CIFAR from small files in their true formats.

Where torchvision checks md5 sums, its list of them is replaced by those of the small files; its own code reads them.
"""

import bz2
import hashlib
import pickle
import tarfile
import urllib.request
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from pictures import table
from torchvision import datasets

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import load_dataset
from raydistill.data.mnist import DIGITS
from raydistill.system.errors import UserError

RNG = np.random.default_rng(0)
COUNTS = {"train": 40, "test": 20}


def load(name, folder, **update):
    return load_dataset(validated(DistillConfig, {"dataset": name, "data": {"val_fraction": 0.25, **update}}), folder)


def pixels_of(data, split):
    return (split.images[:] * data.std[:, None, None] + data.mean[:, None, None]).mul(255).round().to(torch.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def colours(count, classes=10):
    return RNG.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), np.arange(count) % classes


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network\nhere")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_cifar(folder, monkeypatch, name="CIFAR10"):
    """CIFAR's pickles, as torchvision is told to expect them; returns the test images and labels."""
    cls = getattr(datasets, name)
    base, classes = folder / cls.base_folder, 10 if name == "CIFAR10" else 4
    base.mkdir(parents=True)
    key, names = ("labels", "label_names") if name == "CIFAR10" else ("fine_labels", "fine_label_names")
    for part in ("train", "test"):
        files = [file for file, _ in getattr(cls, f"{part}_list")]
        for file in files:
            images, labels = colours(COUNTS[part], classes)
            content = {"data": images.reshape(len(images), -1), key: labels.tolist(), "filenames": []}
            (base / file).write_bytes(pickle.dumps(content))
        monkeypatch.setattr(cls, f"{part}_list", [[file, md5(base / file)] for file in files])
    meta = base / cls.meta["filename"]
    meta.write_bytes(pickle.dumps({names: [f"class {i}" for i in range(classes)]}))
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(meta)})
    return images, labels


@pytest.mark.parametrize(("name", "files"), [("CIFAR10", 5), ("CIFAR100", 1)])
def test_cifar(tmp_path, monkeypatch, offline, name, files):
    images, labels = write_cifar(tmp_path, monkeypatch, name)
    data = load(name.lower(), tmp_path)
    assert data.class_names[:2] == ("class 0", "class 1")  # those of the file
    assert (len(data.train) + len(data.val), len(data.test)) == (files * 40, 20)
    assert np.array_equal(pixels_of(data, data.test), images)
    assert data.test.labels.tolist() == labels.tolist()
    assert load(name.lower(), tmp_path, channels=1, image_size=28).image_shape == (1, 28, 28)


def test_a_cifar_file_with_another_sum_is_never_unpickled(tmp_path, monkeypatch, offline):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    write_cifar(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"^dataset=cifar10: .* undamaged, .*RAYDISTILL_DATA$"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()


def write_svhn(folder, monkeypatch, address="http://nowhere"):
    sums = dict(datasets.SVHN.split_list)
    for part, count in COUNTS.items():
        images, labels = colours(count)
        content = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        path = folder / f"{part}_32x32.mat"
        scipy.io.savemat(path, content, do_compression=True)
        sums[part] = [f"{address}/{path.name}", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)
    return images, labels


def test_svhn(tmp_path, monkeypatch, offline):
    images, labels = write_svhn(tmp_path, monkeypatch)
    data = load("svhn", tmp_path)
    assert data.class_names == DIGITS
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 20)
    assert np.array_equal(pixels_of(data, data.test), images)
    assert data.test.labels.tolist() == labels.tolist()
    (tmp_path / "test_32x32.mat").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"^dataset=svhn: .*RAYDISTILL_DATA$"):
        load("svhn", tmp_path)


def write_usps(folder):
    """libsvm's text: class 1 to 10, then 256 numbered values from -1 to 1."""
    for name, count in (("usps.bz2", COUNTS["train"]), ("usps.t.bz2", COUNTS["test"])):
        values = RNG.uniform(-1, 1, (count, 256)).round(6)
        values[0, :2] = -1, 1
        lines = [
            f"{row % 10 + 1} " + " ".join(f"{place}:{value:g}" for place, value in enumerate(v, start=1)) + " \n"
            for row, v in enumerate(values)
        ]
        (folder / name).write_bytes(bz2.compress("".join(lines).encode()))


def test_usps_is_torchvisions(tmp_path, offline):
    write_usps(tmp_path)
    data = load("usps", tmp_path)
    assert data.class_names == DIGITS
    theirs = datasets.USPS(tmp_path, train=False)
    assert np.array_equal(pixels_of(data, data.test)[:, 0], theirs.data)
    assert data.test.labels.tolist() == theirs.targets
    assert (theirs.data.min(), theirs.data.max()) == (0, 255)
    assert load("usps", tmp_path, image_size=28).image_shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"no bz2", "damaged"),
        (bz2.compress(b"1 1:0.5 2:0.5\n" * 300)[:-20], "damaged"),
        (bz2.compress(b"1 1:0.5 2:0.5\n"), "damaged"),
        (bz2.compress(b"1 a:b\n"), "damaged"),
        (bz2.compress(b"11 " + b" ".join(b"%d:0" % i for i in range(1, 257))), "out of order"),
        (bz2.compress(b"1 " + b" ".join(b"%d:0" % i for i in range(256))), "out of order"),
        (bz2.compress(b"1 " + b" ".join(b"%d:nan" % i for i in range(1, 257))), "no numbers"),
        (b"", "no test images"),
    ],
)
def test_damaged_usps_is_said(tmp_path, content, word):
    write_usps(tmp_path)
    (tmp_path / "usps.t.bz2").write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
        load("usps", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "usps", "svhn", "cifar10", "cifar100", "voc"])
def test_what_is_missing_and_cannot_be_downloaded_is_said(tmp_path, offline, name):
    with pytest.raises(UserError, match=rf"^dataset={name}: {tmp_path} .*no network here.*--data-dir") as error:
        load(name, tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_missing_is_downloaded(tmp_path, monkeypatch, served):
    """By torchvision, from a server of our own."""
    here, (there, address) = tmp_path / "here", served
    write_svhn(there, monkeypatch, address)
    write_usps(there)
    split_list = {
        part: [f"{address}/{file}", file, md5(there / file)]
        for part, file in (("train", "usps.bz2"), ("test", "usps.t.bz2"))
    }
    monkeypatch.setattr(datasets.USPS, "split_list", split_list)
    write_cifar(there, monkeypatch)
    archive = there / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(there / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    for name in ("svhn", "usps", "cifar10"):
        assert load(name, here).fingerprint == load(name, there).fingerprint


@pytest.mark.parametrize(("name", "label"), [("cifar10", "label"), ("mnist", "label"), ("cifar100", "fine_label")])
def test_named_data_as_parquet_in_the_hugging_face_layout(name, label, tmp_path):
    kinds = np.repeat(np.arange(10), 5)
    content = table(kinds).rename_columns(["image", label])
    if name == "cifar100":
        content = content.append_column("coarse_label", pa.array(kinds // 5))
    (tmp_path / name).mkdir()
    for split in ("train", "test"):
        pq.write_table(content, tmp_path / name / f"{split}-00000-of-00001.parquet")
    data = load_dataset(validated(DistillConfig, {"dataset": name, "data": {"val_fraction": 0.2}}), tmp_path)
    assert (len(data.test), data.num_classes) == (50, 10)
    assert data.class_names == (DIGITS if name == "mnist" else tuple(str(k) for k in range(10)))


@pytest.mark.slow
def test_real_data_lie_as_parquet(real_data):
    for name in ("usps", "cifar10"):
        named = load_dataset(DistillConfig(dataset=name), real_data)
        assert named.fingerprint == load_dataset(DistillConfig(dataset=f"parquet:{real_data / name}")).fingerprint
