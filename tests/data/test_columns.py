"""Arrow's types of images, written by pyarrow, pandas and polars."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from pictures import bars, encoded
from PIL import Image

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import load_dataset
from raydistill.system.errors import UserError

LABELS = np.arange(40) % 2
GREY = np.stack([bars(label == 0) for label in LABELS])  # [M, H, W]
WIDE = GREY[:, :, :9]  # higher than wide
COLOUR = np.stack([WIDE, WIDE // 2, 255 - WIDE], 1)  # [M, C, H, W]
FILES = [encoded(pixels) for pixels in GREY]


def read(path, **settings):
    return load_dataset(
        validated(DistillConfig, {"dataset": f"parquet:{path}", "data": {"val_fraction": 0.2, **settings}})
    )


def check(path, pixels, **settings):
    """All images came out, each once."""
    data = read(path, **settings)
    parts = [split.images.levels.numpy() for split in (data.train, data.val, data.test)]
    assert sorted(image.tobytes() for part in parts for image in part) == sorted(image.tobytes() for image in pixels)
    assert data.image_shape == pixels.shape[1:]


def structs(binary, string):
    return pa.array([{"bytes": f, "path": "x.png"} for f in FILES], pa.struct([("bytes", binary), ("path", string)]))


ENCODED = {
    "binary": pa.array(FILES),
    "large binary": pa.array(FILES, pa.large_binary()),
    "binary view": pa.array(FILES, pa.binary_view()),
    "struct": structs(pa.binary(), pa.string()),
    "large struct": structs(pa.large_binary(), pa.large_string()),
    "struct of views": structs(pa.binary_view(), pa.string_view()),
    "dictionary": pa.array(FILES).dictionary_encode(),
}


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_encoded_images(tmp_path, kind, form):
    content = pa.table({"image": ENCODED[kind], "label": LABELS})
    path = tmp_path / f"a.{form}"
    try:
        pq.write_table(content, path) if form == "parquet" else pa.feather.write_feather(content, str(path))
    except pa.ArrowNotImplementedError:
        pytest.skip("pyarrow does not write it")
    check(path, GREY[:, None], image_column="image")


@pytest.mark.parametrize("labels", ["large_string", "string_view", "dictionary"])
def test_names_of_classes(tmp_path, labels):
    names = [f"c{label}" for label in LABELS]
    kept = pa.array(names).dictionary_encode() if labels == "dictionary" else pa.array(names, getattr(pa, labels)())
    pa.feather.write_feather(pa.table({"image": FILES, "label": kept}), str(tmp_path / "a.feather"))
    assert read(tmp_path / "a.feather").class_names == ("c0", "c1")


def test_files_of_several_widths_of_one_type(tmp_path):
    """As one tool wrote one shard and another tool the next."""
    for i, binary in enumerate((pa.binary(), pa.large_binary(), pa.binary_view())):
        some = pa.array(FILES[i::3], binary)
        pa.feather.write_feather(pa.table({"image": some, "label": LABELS[i::3]}), str(tmp_path / f"{i}.feather"))
    check(tmp_path, GREY[:, None])


def tensors(pixels, **names):
    """A column of tensors, in the order of the array's axes."""
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(pixels.dtype), pixels.shape[1:], **names)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), int(np.prod(pixels.shape[1:])))
    return pa.ExtensionArray.from_storage(kind, flat)


LAST = np.ascontiguousarray(COLOUR.transpose(0, 2, 3, 1))
SIDEWAYS = np.ascontiguousarray(COLOUR.transpose(0, 3, 2, 1))  # W, H, C
TENSORS = {
    "grey": (tensors(np.ascontiguousarray(WIDE)), WIDE[:, None]),
    "first": (tensors(COLOUR), COLOUR),
    "last": (tensors(LAST), COLOUR),
    "last, one channel": (tensors(np.ascontiguousarray(WIDE[..., None])), WIDE[:, None]),
    "last, said so": (tensors(LAST, dim_names=["H", "W", "C"]), COLOUR),
    "sideways": (tensors(SIDEWAYS, dim_names=["width", "height", "channels"]), COLOUR),
    "permuted": (tensors(LAST, permutation=[2, 0, 1]), COLOUR),
    "permuted, said so": (tensors(SIDEWAYS, permutation=[1, 2, 0], dim_names=["W", "H", "C"]), COLOUR),
    "uint16": (tensors(COLOUR.astype(np.uint16) * np.uint16(257)), COLOUR),
    "float32": (tensors(COLOUR.astype(np.float32) / np.float32(255)), COLOUR),
    "float64": (tensors(COLOUR / 255), COLOUR),
    "int64, as bytes": (tensors(COLOUR.astype(np.int64)), COLOUR),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors(tmp_path, kind):
    column, pixels = TENSORS[kind]
    pq.write_table(pa.table({"image": column, "label": LABELS}), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", pixels)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((40, 4, 9, 9), np.uint8), ["(4, 9, 9)", "4 channels", "1 or 3"]),
        (np.zeros((40, 9, 9, 2), np.uint8), ["(9, 9, 2)", "9 channels"]),
        (np.zeros((40, 3, 3, 9, 9), np.uint8), ["(3, 3, 9, 9)", "C x H x W"]),
        (np.full((40, 9, 9), 300, np.int32), ["300", "int32", "0 to 255"]),
        (np.full((40, 9, 9), 2.5), ["2.5", "0 (black) to 1 (white)"]),
    ],
)
def test_tensors_that_are_no_images(tmp_path, pixels, words):
    pq.write_table(pa.table({"image": tensors(pixels), "label": LABELS}), tmp_path / "a.parquet")
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.parquet")
    assert all(word in str(error.value) for word in ["a.parquet: column 'image'", *words])


def test_lists_of_lists(tmp_path):
    for name, pixels in (("array2d", WIDE[:, None]), ("array3d", COLOUR)):
        content = pa.table({"image": (pixels[:, 0] if name == "array2d" else pixels).tolist(), "label": LABELS})
        pq.write_table(content, tmp_path / f"{name}.parquet")
        check(tmp_path / f"{name}.parquet", pixels)
    ragged = pa.table({"image": [[[1, 2], [3, 4]], [[1, 2, 3]]] * 20, "label": LABELS})
    pq.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(UserError, match="its images differ in size"):
        read(tmp_path / "ragged.parquet")


@pytest.mark.parametrize("column", ["image", "label"])
def test_rows_without_anything_are_named_by_number(tmp_path, column):
    columns = {"image": list(FILES), "label": LABELS.tolist()}
    columns[column][17] = None
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"column '{column}': row 17 has no"):
        read(tmp_path / "a.parquet")


def test_images_beside_the_table(tmp_path):
    (tmp_path / "images").mkdir()
    paths = [f"images/{i}.png" for i in range(len(GREY))]
    for path, pixels in zip(paths, GREY, strict=True):
        Image.fromarray(pixels).save(tmp_path / path)
    rows = [{"bytes": None, "path": path} for path in paths]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": LABELS}), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", GREY[:, None])
    (tmp_path / paths[3]).unlink()
    with pytest.raises(UserError, match=r"row 3 has no image bytes, and its path images/3\.png is no file in"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("form", ["parquet", "ipc"])
def test_as_polars_writes(tmp_path, form):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"image": FILES, "label": [f"c{label}" for label in LABELS]})
    path = tmp_path / f"a.{'parquet' if form == 'parquet' else 'arrow'}"
    frame.write_parquet(path) if form == "parquet" else frame.write_ipc(path)
    check(path, GREY[:, None])


def test_as_pandas_writes(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"image": FILES, "label": pandas.Categorical([f"c{label}" for label in LABELS])})
    frame.to_parquet(tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", GREY[:, None])


@pytest.mark.parametrize("kind", ["Array2D", "Image"])
def test_as_hugging_face_datasets_writes(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    feature = datasets.Array2D((12, 12), "uint8") if kind == "Array2D" else datasets.Image()
    images = GREY if kind == "Array2D" else [Image.fromarray(pixels) for pixels in GREY]
    features = datasets.Features({"image": feature, "label": datasets.ClassLabel(names=["x", "y"])})
    made = datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=features)
    made.to_parquet(str(tmp_path / "a.parquet"))
    check(tmp_path / "a.parquet", GREY[:, None])
    made.save_to_disk(str(tmp_path / "saved"))
    check(tmp_path / "saved", GREY[:, None])


@pytest.mark.parametrize("split", [None, "train[:20],train[20:]"])
def test_the_hub(tmp_path, split, monkeypatch):
    """Through `datasets.load_dataset`, which takes a local folder for a data set of the hub, too."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    pq.write_table(pa.table({"image": ENCODED["struct"], "label": LABELS}), tmp_path / "train.parquet")
    data = load_dataset(
        validated(DistillConfig, {"dataset": f"hf:{tmp_path}", "data": {"hub.split": split, "val_fraction": 0.2}})
    )
    assert (len(data.train) + len(data.val), len(data.test)) == ((20, 20) if split else (32, 8))


@pytest.mark.slow  # the hub's library tries five times
def test_what_the_hub_has_not(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match="dataset=hf:no/such-data: cannot be had"):
        load_dataset(DistillConfig(dataset="hf:no/such-data"))


def test_settings_of_the_hub_are_for_the_hub():
    with pytest.raises(UserError, match=r"data\.hub\.split: is for dataset=hf:NAME, not digits"):
        validated(DistillConfig, {"data.hub.split": "train"})


@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_a_file_whose_name_is_not_utf8(tmp_path, form):
    content = pa.table({"image": FILES, "label": LABELS})
    made = tmp_path / f"a.{form}"
    pq.write_table(content, made) if form == "parquet" else pa.feather.write_feather(content, str(made))
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff." + form.encode())
    os.rename(made, odd)
    check(odd, GREY[:, None])
