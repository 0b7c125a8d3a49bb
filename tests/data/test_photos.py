"""PASCAL VOC and CUB-200, from small trees in their true layouts."""

import tarfile
from hashlib import md5

import numpy as np
import pytest
from PIL import Image

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import load_dataset
from raydistill.data.sources import read_source
from raydistill.data.voc import CLASSES
from raydistill.system.errors import UserError


def photo(path, level, mode="RGB", size=(50, 40)):
    """A JPEG of one grey level, which tells it from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(path, quality=95)


def write_voc_image(root, name, classes, level, **kind):
    photo(root / "JPEGImages" / f"{name}.jpg", level, **kind)
    objects = "".join(
        f"<object><name>{c}</name><difficult>{i % 2}</difficult><part><name>head</name></part></object>"
        for i, c in enumerate(classes)
    )
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>{objects}</annotation>"
    )


def write_voc(folder, copies=8):
    """Of each split, images of a dog, of two dogs, of a car, of both, and of nothing."""
    root = folder / "VOCdevkit" / "VOC2007"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    shown = [["dog"], ["dog", "dog"], ["car"], ["car", "dog"], []]
    for start, split in ((0, "trainval"), (100, "test")):
        names = []
        for number in range(copies * len(shown)):
            names.append(f"{start + number:06}")
            classes = shown[number % len(shown)]
            write_voc_image(root, names[-1], classes, 10 + number, size=(50 + number, 40))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def test_voc_takes_images_of_one_class(tmp_path):
    write_voc(tmp_path)
    raw = read_source(DistillConfig(dataset="voc"), tmp_path)
    assert raw.class_names == CLASSES
    assert len(CLASSES) == 20
    assert raw.train.images.shape == (24, 3, 224, 224)  # 224 of itself
    one_class = [n for n in range(40) if n % 5 < 3]
    for images, labels in ((raw.train.images, raw.train.labels), (raw.test.images, raw.test.labels)):
        assert [CLASSES[label] for label in labels] == ["car" if n % 5 == 2 else "dog" for n in one_class]
        assert np.abs(images.mean((1, 2, 3)) - 10 - one_class).max() < 1.5  # these very images, as JPEG keeps them
    data = load_dataset(
        validated(DistillConfig, {"dataset": "voc", "data": {"image_size": 32, "channels": 1, "val_fraction": 0.25}}),
        tmp_path,
    )
    assert data.image_shape == (1, 32, 32)


def test_voc_is_downloaded_by_torchvision(tmp_path, monkeypatch, served):
    """Both archives, from a server of our own."""
    from torchvision.datasets import voc

    here, (there, address) = tmp_path / "here", served
    root = write_voc(there)
    for key, split in (("2007", "trainval"), ("2007-test", "test")):
        archive = there / f"{split}.tar"
        with tarfile.open(archive, "w") as tar:
            other = {"trainval": "test", "test": "trainval"}[split]
            tar.add(
                there / "VOCdevkit", "VOCdevkit", filter=lambda f, o=other: None if f.name.endswith(f"{o}.txt") else f
            )
        where = {
            "url": f"{address}/{archive.name}",
            "filename": archive.name,
            "md5": md5(archive.read_bytes()).hexdigest(),
        }
        monkeypatch.setitem(voc.DATASET_YEAR_DICT, key, voc.DATASET_YEAR_DICT[key] | where)
    config = validated(DistillConfig, {"dataset": "voc", "data": {"image_size": 16, "val_fraction": 0.25}})
    assert load_dataset(config, here).fingerprint == load_dataset(config, root.parents[1]).fingerprint


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("Annotations/000000.xml", ["000000.xml", "not an annotation"]),
        ("JPEGImages/000002.jpg", ["000002.jpg: ", "read"]),
        ("ImageSets/Main/test.txt", ["test.txt"]),
    ],
)
@pytest.mark.parametrize("content", [None, b"\xff\xfe<nonsense two words>"])
def test_damaged_voc_is_said(tmp_path, damage, words, content):
    root = write_voc(tmp_path)
    (root / damage).unlink()
    if content:
        (root / damage).write_bytes(content)
    elif damage.endswith(".txt"):
        (root / damage).mkdir()  # there, but not a file
    with pytest.raises(UserError) as error:
        read_source(DistillConfig(dataset="voc"), tmp_path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_class_in_voc_is_said(tmp_path):
    root = write_voc(tmp_path)
    write_voc_image(root, "000000", ["unicorn"], 10)
    with pytest.raises(UserError, match=r"000000\.xml: not an annotation of VOC 2007"):
        read_source(DistillConfig(dataset="voc"), tmp_path)


def write_cub(folder, count=24):
    """Two species in turn; two of three images are for training; one is grey."""
    root = folder / "CUB_200_2011"
    species = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    files = [f"{species[n % 2]}/{n:04}.jpg" for n in range(count)]
    for number, file in enumerate(files):
        photo(root / "images" / file, 10 + 5 * number, mode="L" if number == 3 else "RGB", size=(60, 40 + number))
    lines = {
        "classes.txt": [f"{n} {name}" for n, name in enumerate(species, start=1)],
        "images.txt": [f"{n} {file}" for n, file in enumerate(files, start=1)],
        "image_class_labels.txt": [f"{n + 1} {n % 2 + 1}" for n in range(count)],
        "train_test_split.txt": [f"{n + 1} {int(n % 3 < 2)}" for n in range(count)],
    }
    for name, rows in lines.items():
        (root / name).write_text("\n".join(rows) + "\n")
    return root


def test_cub200(tmp_path):
    write_cub(tmp_path)
    raw = read_source(DistillConfig(dataset="cub200"), tmp_path)
    assert raw.class_names == ("Black_footed_Albatross", "Laysan_Albatross")
    training, test = ([n for n in range(24) if (n % 3 < 2) is part] for part in (True, False))
    parts = ((raw.train.images, raw.train.labels, training), (raw.test.images, raw.test.labels, test))
    for images, labels, numbers in parts:
        assert images.shape == (len(numbers), 3, 224, 224)
        assert labels.tolist() == [n % 2 for n in numbers]
        assert np.abs(images.mean((1, 2, 3)) - 10 - 5 * np.array(numbers)).max() < 2
    small = load_dataset(
        validated(
            DistillConfig, {"dataset": "cub200", "data": {"image_size": 24, "channels": 1, "val_fraction": 0.25}}
        ),
        tmp_path,
    )
    assert small.image_shape == (1, 24, 24)


def test_missing_cub200_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"^dataset=cub200: .*CUB_200_2011 is missing; .*caltech.*--data-dir or RAY"):
        load_dataset(DistillConfig(dataset="cub200"), tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("images.txt", None, ["images.txt: cannot be read"]),
        ("classes.txt", "1\n", ["classes.txt: lines must have 2 words"]),
        ("image_class_labels.txt", "1 1\n", ["image_class_labels.txt", "1 to 2", "'2'"]),
        ("image_class_labels.txt", "".join(f"{n} 3\n" for n in range(1, 25)), ["image_class_labels.txt", "1 to 2"]),
        (
            "train_test_split.txt",
            "".join(f"{n} yes\n" for n in range(1, 25)),
            ["train_test_split.txt", "0 to 1", "yes"],
        ),
        ("train_test_split.txt", "".join(f"{n} 1\n" for n in range(1, 25)), ["no test images"]),
        ("images/001.Black_footed_Albatross/0000.jpg", "no", ["0000.jpg: not an image"]),
        ("images/001.Black_footed_Albatross/0000.jpg", None, ["0000.jpg: cannot be read"]),
    ],
)
def test_damaged_cub200_is_said(tmp_path, file, content, words):
    root = write_cub(tmp_path)
    (root / file).unlink()
    if content is not None:
        (root / file).write_text(content)
    with pytest.raises(UserError) as error:
        read_source(DistillConfig(dataset="cub200"), tmp_path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
