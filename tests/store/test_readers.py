"""What README says of other libraries: each opens an artifact as it is, here the newest of each."""

import json

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.method import DistilledSet
from raydistill.runs.pretraining import pretrain
from raydistill.store.artifact import Artifact, load, save
from raydistill.store.bank import load_bank

CLASSES = ("ähnlich", "a b", "c/d")


@pytest.fixture(params=[(1, 4, 5), (3, 8, 8), (1, 28, 28)], ids=str)
def folder(request, tmp_path):
    generator = torch.Generator().manual_seed(0)
    distilled = DistilledSet(
        torch.randn(2, 6, *request.param, generator=generator),
        torch.rand(2, 6, 3, generator=generator),
        torch.randn(3, 2, generator=generator),
    )
    channels = request.param[0]
    weights = {"conv.weight": torch.randn(2, 1, 3, 3, generator=generator), "conv.bias": torch.zeros(2)}
    config = DistillConfig(steps=2, epochs=3, images_per_class=2)
    save(
        Artifact(distilled, config, CLASSES, torch.full((channels,), 0.25), torch.full((channels,), 0.5), weights),
        tmp_path / "a.distilled",
    )
    return tmp_path / "a.distilled"


def same(folder, images, soft_labels, labels):
    """Whether these are, bit for bit, what `load` gives."""
    distilled = load(folder).distilled
    expected = distilled.images.flatten(0, 1).numpy(), distilled.labels.flatten(0, 1).numpy()
    return (
        images.dtype == np.float32
        and np.array_equal(images, expected[0])
        and np.array_equal(np.asarray(soft_labels, np.float32), expected[1])
        and list(labels) == expected[1].argmax(1).tolist()
    )


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """Hugging Face datasets, with its cache in the test's own folder, and no network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("how", ["file", "folder"])
def test_hugging_face_datasets(folder, hugging_face, how, streaming):
    what = {"path": str(folder)}
    if how == "file":
        what = {"path": "arrow", "data_files": str(folder / "images.arrow")}
    found = hugging_face.load_dataset(**what, split="train", streaming=streaming)
    assert found.column_names == ["step", "label", "soft_label", "image"]
    assert found.features["label"].names == list(CLASSES)
    rows = list(found.with_format("numpy"))
    assert same(
        folder, np.stack([r["image"] for r in rows]), [r["soft_label"] for r in rows], [r["label"] for r in rows]
    )
    first = next(iter(found.with_format("torch")))
    assert torch.equal(first["image"], load(folder).distilled.images[0, 0])


def test_hugging_face_opens_the_other_tables_and_writes_ours(folder, hugging_face, tmp_path):
    schedule = hugging_face.load_dataset(str(folder), "schedule", split="train")
    rates = load(folder).distilled.learning_rates.flatten().numpy()
    assert np.array_equal(schedule.with_format("numpy")["learning_rate"][:], rates)
    weights = hugging_face.load_dataset("arrow", data_files=str(folder / "weights.arrow"), split="train")
    assert weights["name"][:] == ["conv.weight", "conv.bias"]
    images = hugging_face.load_dataset(str(folder), split="train")
    images.to_parquet(tmp_path / "images.parquet")  # as a data set on the hub would keep it
    again = hugging_face.load_dataset("parquet", data_files=str(tmp_path / "images.parquet"), split="train")
    assert again.features == images.features
    assert again[7] == images[7]


def test_pandas(folder):
    frame = pd.read_feather(folder / "images.arrow", dtype_backend="pyarrow")
    assert same(folder, np.array(frame["image"].tolist(), "float32"), frame["soft_label"].tolist(), frame["label"])
    for name in ("schedule", "weights"):
        assert len(pd.read_feather(folder / f"{name}.arrow")) == {"schedule": 6, "weights": 2}[name]
    plain = pd.read_feather(folder / "images.arrow")
    assert np.array_equal(np.stack([np.stack(c) for c in plain["image"][3]]), np.array(frame["image"][3], "float32"))


def test_polars(folder):
    frame = pl.read_ipc(folder / "images.arrow")
    assert frame.schema["image"] == pl.Array(pl.Float32, load(folder).image_shape)
    assert same(folder, frame["image"].to_numpy(), frame["soft_label"].to_numpy(), frame["label"])
    assert pl.scan_ipc(folder / "images.arrow").filter(pl.col("step") == 1).collect().height == 6
    assert pl.read_ipc(folder / "schedule.arrow").height == 6
    assert pl.read_ipc(folder / "weights.arrow")["name"].to_list() == ["conv.weight", "conv.bias"]


def in_duckdb(file, columns):
    return duckdb.from_arrow(pa.ipc.open_file(str(file)).read_all()).query("opened", f"select {columns} from opened")


def test_duckdb(folder):
    rows = in_duckdb(folder / "images.arrow", "image, soft_label, label").fetchall()
    assert same(folder, np.array([r[0] for r in rows], "float32"), [r[1] for r in rows], [r[2] for r in rows])
    channels, height, width = load(folder).image_shape
    assert in_duckdb(folder / "images.arrow", "image").types == [f"FLOAT[{width}][{height}][{channels}]"]
    assert in_duckdb(folder / "schedule.arrow", "count(*), max(epoch)").fetchall() == [(6, 2)]
    weights = in_duckdb(folder / "weights.arrow", "name, len(values)")
    assert weights.fetchall() == [("conv.weight", 18), ("conv.bias", 2)]


def test_all_of_them_open_a_bank(digits, hugging_face, tmp_path):
    pretrain(PretrainConfig(nets=3, chunk=3, epochs=1), tmp_path / "bank", data=digits)
    [file] = (tmp_path / "bank").glob("*.arrow")
    expected = load_bank(tmp_path / "bank").networks.numpy()
    accuracy = json.loads((tmp_path / "bank" / "manifest.json").read_text())["metrics"]["test_accuracy"]
    found = hugging_face.load_dataset("arrow", data_files=str(file), split="train").with_format("numpy")
    for networks in (
        found["weights"][:],
        np.stack(pd.read_feather(file)["weights"]),
        pl.read_ipc(file)["weights"].to_numpy(),
        np.array([r[0] for r in in_duckdb(file, "weights").fetchall()], "float32"),
    ):
        assert np.array_equal(networks, expected)
    assert in_duckdb(file, "avg(test_accuracy)").fetchall()[0][0] == pytest.approx(accuracy)
