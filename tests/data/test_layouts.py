"""Folders and tables as people have them: classes, splits, lists of files; Hugging Face's reader is the oracle."""

import json
import logging
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import bars, encoded, table, write_classes
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import load_dataset
from raydistill.data.splits import split_of
from raydistill.system.errors import UserError

LABELS = np.arange(40) % 4


def read(path, kind="folder", **settings):
    return load_dataset(
        validated(DistillConfig, {"dataset": f"{kind}:{path}", "data": {"val_fraction": 0.2, **settings}})
    )


def sizes(data):
    return len(data.train) + len(data.val), len(data.test)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)


# -- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".DS_Store", "__MACOSX", ".git"])
def test_hidden_folders_are_no_classes(tmp_path, hidden):
    write_classes(tmp_path, ["a", "b", hidden])
    assert read(tmp_path).class_names == ("a", "b")


def test_hidden_files_and_others_are_no_images(tmp_path):
    write_classes(tmp_path, ["a", "b"])
    for name in ("._00.png", "Thumbs.db", "notes.txt", "report.pdf"):
        (tmp_path / "a" / name).write_bytes(b"no image")
    assert sizes(read(tmp_path)) == (16, 4)


@pytest.mark.parametrize("split", ["", "train"])
def test_a_class_without_images_is_left_out_with_a_line(tmp_path, split, caplog):
    write_classes(tmp_path, ["a", "b"], split=split)
    if split:
        write_classes(tmp_path, ["a", "b"], split="test")
    (tmp_path / split / "empty").mkdir()
    assert read(tmp_path).class_names == ("a", "b")
    assert "left out, as they have no training images: empty" in caplog.text


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS + 1, ("1", "2", "3", "4")),
        (LABELS * 10 + 3, ("3", "13", "23", "33")),
        (LABELS * 1000 + 2_119_789, ("2119789", "2120789", "2121789", "2122789")),
        (LABELS.astype(np.uint64) + np.uint64(2**63), tuple(str(2**63 + i) for i in range(4))),
        (LABELS % 2 * 2 - 1, ("-1", "1")),
        (LABELS.astype(np.float64), ("0", "1", "2", "3")),
        (LABELS.astype(np.int8), ("0", "1", "2", "3")),
        (LABELS % 2 == 0, ("False", "True")),
        (np.array([*"zyxw"])[LABELS], ("w", "x", "y", "z")),
    ],
    ids=["from 1", "gaps", "ids", "large ids", "signs", "floats", "int8", "booleans", "names"],
)
def test_numbers_become_classes_with_those_names(tmp_path, labels, names):
    write(tmp_path / "a.parquet", table(labels))
    data = read(tmp_path / "a.parquet", "parquet")
    assert data.class_names == names
    assert sorted(data.train.labels.unique().tolist()) == list(range(len(names)))


def test_a_dictionary_of_names(tmp_path):
    labels = pa.array(["b", "a", "c", "b"] * 10).dictionary_encode()
    write(tmp_path / "a.parquet", table(LABELS, kind=labels).drop_columns("label"))
    assert read(tmp_path / "a.parquet", "parquet", label_column="kind").class_names == ("a", "b", "c")


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_test_classes_that_training_lacks_are_refused_by_name(tmp_path, kind):
    if kind == "folder":
        write_classes(tmp_path, ["a", "b"], split="train")
        write_classes(tmp_path, ["a", "b", "novel"], split="test")
    else:
        write(tmp_path / "train.parquet", table(np.array(["a", "b"])[LABELS % 2]))
        write(tmp_path / "test.parquet", table(np.array(["a", "b", "novel"])[LABELS % 3]))
    done = CliRunner().invoke(app, ["distill", "--set", f"dataset={kind}:{tmp_path}", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "test images are of class novel, of which there are no training images" in " ".join(done.output.split())


def test_names_are_compared_composed(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    write_classes(tmp_path, [composed, "tea"], split="train")
    write_classes(tmp_path, [decomposed, "tea"], split="test")
    assert read(tmp_path).class_names == (composed, "tea")


def test_classes_with_names_that_have_no_images(tmp_path, caplog):
    features = {"label": {"_type": "ClassLabel", "names": ["a", "b", "unused", "d"]}}
    content = table(np.array([0, 1, 3, 1])[LABELS])
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    write(tmp_path / "a.parquet", content.replace_schema_metadata(about))
    assert read(tmp_path / "a.parquet", "parquet").class_names == ("a", "b", "d")
    assert "unused" in caplog.text


# -- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "my_train", "train-00000-of-00001", "train2017")),
        *((name, "test") for name in ("test", "Testing", "x.test.y", "TEST_1", "evaluation")),
        *((name, "val") for name in ("val", "valid", "Validation", "dev", "dev-set")),
        *(
            (name, None)
            for name in ("contest", "latest", "retrain", "device", "interval", "trainer", "trainval", "data")
        ),
    ],
)
def test_splits_are_whole_words(name, split):
    assert split_of(name) == split


def test_the_file_says_its_split_before_its_folders():
    assert split_of("test-0", "train") == "test"
    assert split_of("0000", "train", "latest") == "train"
    with pytest.raises(UserError, match="its name says train and test"):
        split_of("train_test")
    assert split_of("train_test", "test") == "test"


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("TRAIN_images", "VALID_images"), ("train", "dev")],
)
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_every_spelling(tmp_path, kind, train, test):
    for split, count in ((train, 10), (test, 5)):
        if kind == "folder":
            write_classes(tmp_path, ["a", "b"], count, split)
        else:
            write(tmp_path / split / "part.parquet", table(LABELS[: 2 * count] % 2))
    assert sizes(read(tmp_path, kind)) == (20, 10)


def test_a_file_is_in_one_split(tmp_path):
    write(tmp_path / "latest" / "contest_train.parquet", table(LABELS))
    write(tmp_path / "latest" / "contest_test.parquet", table(LABELS[:8]))
    assert sizes(read(tmp_path, "parquet")) == (40, 8)


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path, ["car", "plane", "train"])
    assert read(tmp_path).class_names == ("car", "plane", "train")


@pytest.mark.parametrize("wrapper", ["archive", "train"])
def test_a_folder_around_all_is_looked_through(tmp_path, wrapper):
    write_classes(tmp_path, ["a", "b"], split=wrapper)
    assert read(tmp_path).class_names == ("a", "b")


def test_validation_beside_test_is_told_not_used(tmp_path, caplog):
    for split in ("train", "val", "test"):
        write_classes(tmp_path, ["a", "b"], split=split)
    assert sizes(read(tmp_path)) == (20, 20)
    assert "the validation set (one is split off the training set) is not used" in caplog.text


def test_images_in_two_splits_are_counted_and_named(tmp_path, caplog):
    write_classes(tmp_path, ["a", "b"], split="train")
    write_classes(tmp_path, ["a", "b"], split="test")
    for i in (3, 5):
        twin = (tmp_path / "train" / "a" / f"{i:02}.png").read_bytes()
        (tmp_path / "test" / "a" / f"{i:02}.png").write_bytes(twin)
    read(tmp_path)
    lines = [record.getMessage() for record in caplog.records if "pixel for pixel" in record.getMessage()]
    assert sum(int(line.split(" of the 20 test images")[0].split()[-1]) for line in lines) == 2
    assert str(tmp_path / "test" / "a" / "03.png") in lines[0] + lines[-1]


def test_well_formed_data_say_nothing(tmp_path, caplog):
    write_classes(tmp_path, ["a", "b"], split="train")
    write_classes(tmp_path, ["a", "b"], split="test")
    with caplog.at_level(logging.INFO):
        read(tmp_path)
    assert not caplog.records


# -- lists of files --------------------------------------------------------------------------------------------------


def listed(root, names, folder=""):
    """Pictures of those names, and the lines `NAME,CLASS`."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    lines = []
    for i, name in enumerate(names):
        (root / folder / name).write_bytes(encoded(bars(i % 2 == 0)))
        lines.append(f"{name},{'ab'[i % 2]}")
    return "\n".join(lines) + "\n"


NAMES = [f"{i:03}.png" for i in range(20)]


@pytest.mark.parametrize("kind", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_beside_images(tmp_path, kind):
    lines = listed(tmp_path, NAMES)
    rows = [line.split(",") for line in lines.split()]
    if kind.endswith("csv"):
        (tmp_path / kind).write_text("file_name,label\n" + lines)
    elif kind.endswith("jsonl"):
        (tmp_path / kind).write_text("".join(json.dumps({"file_name": f, "label": c}) + "\n" for f, c in rows))
    else:
        pq.write_table(pa.table({"file_name": [f for f, _ in rows], "label": [c for _, c in rows]}), tmp_path / kind)
    data = read(tmp_path)
    assert (data.class_names, sizes(data)) == (("a", "b"), (16, 4))


def test_metadata_in_each_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.csv").write_text("file_name,label\n" + listed(tmp_path, NAMES, split))
    assert sizes(read(tmp_path)) == (20, 20)


def test_metadata_above_the_splits(tmp_path):
    lines = [f"{split}/{line}" for split in ("train", "test") for line in listed(tmp_path, NAMES, split).split()]
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "\n".join(lines))
    assert sizes(read(tmp_path)) == (20, 20)


def test_metadata_with_whole_paths(tmp_path):
    """As programs write them, also of images that lie elsewhere."""
    lines = listed(tmp_path / "elsewhere", NAMES).split()
    (tmp_path / "data").mkdir()
    rows = "\n".join(f"{tmp_path / 'elsewhere'}/{line}" for line in lines)
    (tmp_path / "data" / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert sizes(read(tmp_path / "data")) == (16, 4)


@pytest.mark.parametrize("folder", ["", "images", "train"])
@pytest.mark.parametrize("column", ["image", "id", "Filename"])
def test_train_csv_beside_a_folder_of_images(tmp_path, folder, column):
    """Numbers for names, and no endings, as in competitions; their test.csv has no classes."""
    lines = listed(tmp_path, NAMES, folder).replace(".png", "")
    (tmp_path / "train.csv").write_text(f"{column},label\n{lines}")
    (tmp_path / "test.csv").write_text(f"{column}\n100\n")
    assert sizes(read(tmp_path)) == (16, 4)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("file_name,label\nnone.png,a\n", ["row 0 names none.png, which is not there"]),
        ("file_name,label\n000.png,\n", ["row 0 has no class"]),
        ("file_name,colour\n000.png,red\n", ["no label column", "file_name, colour", "set data.label_column"]),
        ("colour,label\nred,a\n", ["no image column"]),
    ],
)
def test_what_a_list_lacks_is_said(tmp_path, lines, words):
    listed(tmp_path, NAMES)
    (tmp_path / "metadata.csv").write_text(lines)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert all(word in str(error.value) for word in ["metadata.csv", *words])


def test_columns_of_a_list_by_name(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,colour\n" + listed(tmp_path, NAMES))
    assert read(tmp_path, label_column="colour").class_names == ("a", "b")


# -- the oracle ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["classes", "splits", "metadata", "parquet", "saved", "saved splits"])
def test_as_hugging_face_datasets_reads_it(tmp_path, layout):
    datasets = pytest.importorskip("datasets")
    root, cache = tmp_path / "data", tmp_path / "cache"
    if layout == "classes":
        write_classes(root, ["a", "b", ".hidden"])
    elif layout == "metadata":
        root.mkdir()
        (root / "metadata.csv").write_text("file_name,label\n" + listed(root, NAMES))
    elif layout == "parquet":
        for split, count in (("train", 40), ("test", 8)):
            write(root / "data" / f"{split}-00000-of-00001.parquet", table(LABELS[:count]))
    else:
        for split in ("training", "testing"):
            write_classes(root / "files", ["a", "b"], split=split)
    if layout in ("classes", "metadata", "parquet"):
        theirs = datasets.load_dataset(str(root), cache_dir=str(cache))
    else:
        theirs = datasets.load_dataset("imagefolder", data_dir=str(root / "files"), cache_dir=str(cache))
    kind = "parquet" if layout in ("parquet", "saved", "saved splits") else "folder"
    if layout.startswith("saved"):
        root = tmp_path / "saved"
        (theirs if layout == "saved splits" else theirs["train"]).save_to_disk(str(root))
        kept = theirs if layout == "saved splits" else {"train": theirs["train"]}
        again = datasets.load_from_disk(str(root))
        (again["train"] if layout == "saved splits" else again).map(lambda row: row, load_from_cache_file=False)
        theirs = kept
    ours = read(root if layout != "splits" else root / "files", kind)
    one = len(theirs) == 1
    assert sizes(ours) == ((16, 4) if one else (len(theirs["train"]), len(theirs["test"])))
    feature = theirs["train"].features["label"]
    names = getattr(feature, "names", None) or sorted({str(c) for c in theirs["train"]["label"]})
    assert ours.class_names == tuple(names)
    if not one:
        theirs_test = [
            np.asarray(datasets.Image().decode_example(row)) if isinstance(row, dict) else np.asarray(row)
            for row in theirs["test"]["image"]
        ]
        mine = ours.test.images.levels.numpy()[:, 0]
        assert sorted(x.tobytes() for x in theirs_test) == sorted(x.tobytes() for x in mine)
