"""Parquet, Arrow and folders, written here with pyarrow and Pillow as other tools write them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import load_dataset
from raydistill.system.errors import UserError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 9, 7, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def table(pixels=PIXELS, labels=LABELS, image="image", label="label", struct=True, names=None):
    files = [png(p) for p in pixels]
    images = [{"bytes": f, "path": None} for f in files] if struct else files
    result = pa.table({image: images, label: pa.array(labels)})
    if names:
        features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": names}}
        result = result.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return result


def pixels_of(data, split):
    return (split.images[:] * data.std[:, None, None] + data.mean[:, None, None]).mul(255).round().to(torch.uint8)


def config(path, **update):
    return validated(DistillConfig, {"dataset": f"parquet:{path}", "data": {"val_fraction": 0.25, **update}})


def test_hugging_face_folder_with_train_and_test(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(table(names=["ant", "bee", "cat"]), tmp_path / "data" / "train-00000-of-00001.parquet")
    pq.write_table(table(PIXELS[:9], LABELS[:9]), tmp_path / "data" / "test-00000-of-00001.parquet")
    data = load_dataset(config(tmp_path))
    assert data.class_names == ("ant", "bee", "cat")
    assert data.image_shape == (3, 9, 7)
    assert (len(data.train) + len(data.val), len(data.test)) == (30, 9)
    assert torch.equal(pixels_of(data, data.test), torch.from_numpy(PIXELS[:9]).permute(0, 3, 1, 2))
    assert data.test.labels.tolist() == LABELS[:9].tolist()


@pytest.mark.parametrize("form", ["parquet", "feather", "stream"])
def test_one_file_of_each_form_with_bytes_and_named_classes(tmp_path, form):
    names = np.array(["x", "y", "z"])[LABELS]
    content = table(labels=names, struct=False)
    path = tmp_path / {"parquet": "a.parquet", "feather": "a.feather", "stream": "a.arrow"}[form]
    if form == "parquet":
        pq.write_table(content, path)
    elif form == "feather":
        pa.feather.write_feather(content, str(path))
    else:
        with pa.ipc.new_stream(str(path), content.schema) as writer:
            writer.write_table(content)
    data = load_dataset(config(path))
    assert data.class_names == ("x", "y", "z")
    assert (len(data.train) + len(data.val), len(data.test)) == (24, 6)  # a fifth is the test set
    for split in (data.train, data.test):  # each image still has its own label
        for image, label in zip(pixels_of(data, split), split.labels, strict=True):
            row = next(i for i, p in enumerate(PIXELS) if torch.equal(image, torch.from_numpy(p).permute(2, 0, 1)))
            assert LABELS[row] == label


def test_tensor_column_and_columns_by_name(tmp_path):
    grey = np.ascontiguousarray(PIXELS[..., 0])
    columns = {"scan": pa.FixedShapeTensorArray.from_numpy_ndarray(grey), "kind": LABELS, "other": LABELS}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no label column \(it has scan, kind, other\); set data.label_column"):
        load_dataset(config(tmp_path / "a.parquet"))
    data = load_dataset(config(tmp_path / "a.parquet", label_column="kind"))
    assert data.image_shape == (1, 9, 7)


def test_grey_images_have_one_channel_and_sizes_can_be_brought_together(tmp_path):
    mixed = [png(p[:, :, 0]) for p in PIXELS[:29]] + [png(PIXELS[29, :8, :, 0])]
    pq.write_table(pa.table({"image": mixed, "label": LABELS}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 29: is 8x7 pixels and .*row 0 9x7; set data.image_size"):
        load_dataset(config(tmp_path / "a.parquet"))
    assert load_dataset(config(tmp_path / "a.parquet", image_size=6)).image_shape == (1, 6, 6)


def broken(kind, path):
    if kind == "bad image":
        return pa.table({"image": [b"no"] * 30, "label": LABELS})
    if kind == "no image":
        return pa.table({"label": LABELS})
    if kind == "float labels":
        return table(labels=LABELS * 0.5)
    if kind == "null image":
        return pa.table({"image": [None] + [png(p) for p in PIXELS[1:]], "label": LABELS})
    return table(labels=[0] * 29 + [1])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bad image", ["row 0", "not an image"]),
        ("no image", ["no image column", "set data.image_column"]),
        ("float labels", ["column 'label'", "neither whole numbers"]),
        ("null image", ["row 0 has no image"]),
        ("lonely class", ["split"]),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, kind, words):
    pq.write_table(broken(kind, tmp_path), tmp_path / "a.parquet")
    with pytest.raises(UserError) as error:
        load_dataset(config(tmp_path / "a.parquet"))
    for word in ["a.parquet", *words]:
        assert word in str(error.value)


def test_not_a_parquet_file(tmp_path):
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(UserError, match=r"a\.parquet: not a file that Arrow can read"):
        load_dataset(config(tmp_path / "a.parquet"))


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_folder_by_class(tmp_path, splits):
    for split in splits:
        for row, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            folder = tmp_path / split / "abc"[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:02}.png").write_bytes(png(pixels))
    data = load_dataset(validated(DistillConfig, {"dataset": f"folder:{tmp_path}", "data": {"val_fraction": 0.25}}))
    assert data.class_names == ("a", "b", "c")
    assert len(data.test) == (30 if "test" in splits else 6)
    shown = pixels_of(data, data.test)[0].permute(1, 2, 0).numpy()
    row = next(i for i, p in enumerate(PIXELS) if np.array_equal(p, shown))
    assert LABELS[row] == data.test.labels[0]


def test_folder_without_classes(tmp_path):
    with pytest.raises(UserError, match="no folder for each class"):
        load_dataset(DistillConfig(dataset=f"folder:{tmp_path}"))
