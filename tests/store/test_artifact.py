"""Artifacts: exact, readable by others, and safe against damage."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydistill.config.augment_settings import Transforms
from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import AdamRecipe, ScheduleRecipe
from raydistill.method import DistilledSet
from raydistill.store.arrow import nested
from raydistill.store.artifact import Artifact, load, save
from raydistill.system.errors import UserError

CONFIG = DistillConfig(steps=2, epochs=3, images_per_class=2)


@pytest.fixture
def artifact() -> Artifact:
    generator = torch.Generator().manual_seed(0)
    distilled = DistilledSet.from_rates(
        torch.randn(2, 6, 1, 4, 5, generator=generator),
        torch.rand(2, 6, 3, generator=generator).softmax(-1),
        torch.rand(3, 2, generator=generator) + 0.01,
    )
    return Artifact(
        distilled=distilled,
        config=CONFIG,
        class_names=("a", "b", "c"),
        mean=torch.tensor([0.25]),
        std=torch.tensor([0.5]),
        weights={"conv.weight": torch.randn(2, 1, 3, 3, generator=generator), "conv.bias": torch.zeros(2)},
        metrics={"val_accuracy": 0.5, "num_images": 12},
        provenance={"seed": 0},
    )


def test_round_trip_is_exact(artifact, tmp_path):
    save(artifact, tmp_path / "a.distilled")
    back = load(tmp_path / "a.distilled")
    assert torch.equal(back.distilled.images, artifact.distilled.images)
    assert torch.equal(back.distilled.labels, artifact.distilled.labels)
    assert torch.equal(back.distilled.raw_rates, artifact.distilled.raw_rates)
    assert torch.equal(back.distilled.learning_rates, artifact.distilled.learning_rates)
    assert back.config == CONFIG
    assert back.class_names == ("a", "b", "c")
    assert (back.metrics, back.provenance) == (artifact.metrics, artifact.provenance)
    assert back.weights is not None
    assert all(torch.equal(back.weights[k], w) for k, w in artifact.weights.items())
    assert torch.equal(back.pixels(), artifact.distilled.images * 0.5 + 0.25)


@pytest.mark.parametrize("recipe", [ScheduleRecipe(), AdamRecipe(lr=0.01, batch=4, augment=Transforms(flip=True))])
def test_the_recipe_is_kept(artifact, tmp_path, recipe):
    save(replace(artifact, recipe=recipe), tmp_path / "a.distilled")
    assert load(tmp_path / "a.distilled").recipe == recipe


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"name": "auto"}, "recipe: should be one that was chosen, not auto"),
        ({"name": "lamb"}, "recipe: should be auto, schedule, adam or sgd, not 'lamb'"),
        ({"name": "adam", "lr": -1.0}, "recipe.lr"),
        ({"name": "adam", "augment": {"shift": 2}}, "recipe.augment.shift=2: is more than a quarter of a side"),
    ],
)
def test_a_recipe_that_is_none_is_named(artifact, tmp_path, recipe, words):
    save(artifact, tmp_path / "a.distilled")
    path = tmp_path / "a.distilled" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": recipe}))
    with pytest.raises(UserError, match=words):
        load(tmp_path / "a.distilled")


def test_opens_with_pyarrow_alone(artifact, tmp_path):
    """In a process that cannot import torch or raydistill."""
    save(artifact, tmp_path / "a.distilled")
    script = f"""
import sys
sys.modules["torch"] = sys.modules["raydistill"] = None
import numpy as np, pyarrow as pa
def read(name):
    return pa.ipc.open_file("{tmp_path}/a.distilled/" + name).read_all()
images, schedule, weights = read("images.arrow"), read("schedule.arrow"), read("weights.arrow")
assert images.column_names == ["step", "label", "soft_label", "image"], images.column_names
assert schedule.column_names == ["epoch", "step", "learning_rate", "raw_rate"]
assert weights.column_names == ["name", "shape", "values"]
assert images["image"].type == pa.list_(pa.list_(pa.list_(pa.float32(), 5), 4), 1)
np.save("{tmp_path}/images.npy", np.array(images["image"].to_pylist(), "float32"))
print(images["step"].to_pylist(), images["label"].to_pylist(), schedule["learning_rate"].to_pylist())
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert np.array_equal(np.load(tmp_path / "images.npy"), artifact.distilled.images.flatten(0, 1).numpy())
    assert str([0] * 6 + [1] * 6) in out
    assert str(artifact.distilled.labels.flatten(0, 1).argmax(1).tolist()) in out


def test_overwriting_leaves_nothing_behind(artifact, tmp_path):
    for _ in range(2):
        save(artifact, tmp_path / "a.distilled")
    assert [p.name for p in tmp_path.iterdir()] == ["a.distilled"]


def test_no_weights_where_they_are_random(artifact, tmp_path):
    save(replace(artifact, weights=None), tmp_path / "a.distilled")
    assert not (tmp_path / "a.distilled" / "weights.arrow").exists()
    assert load(tmp_path / "a.distilled").weights is None


@pytest.mark.parametrize("name", ["images.arrow", "schedule.arrow", "weights.arrow", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "changed", "cut", "empty"])
def test_damage_is_named(artifact, tmp_path, name, damage):
    folder = tmp_path / "a.distilled"
    save(artifact, folder)
    path = folder / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.raises(UserError) as error:
        load(folder)
    assert name in str(error.value)
    assert str(folder) in str(error.value)


def rewrite(folder, name, table):
    """Replaces a table and its sum, as an attacker who knows the format would."""
    import hashlib

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("attack", ["column", "nan", "rate", "rows", "order", "shape", "weights", "type"])
def test_tables_that_make_no_sense_are_refused(artifact, tmp_path, attack):
    folder = tmp_path / "a.distilled"
    save(artifact, folder)
    images, schedule, weights = (
        pa.ipc.open_file(str(folder / f"{n}.arrow")).read_all() for n in ("images", "schedule", "weights")
    )
    rates = artifact.distilled.learning_rates.flatten().numpy().copy()
    if attack == "column":
        rewrite(folder, "images.arrow", images.drop_columns(["soft_label"]))
    elif attack == "nan":
        rates[0] = np.nan
        rewrite(folder, "schedule.arrow", schedule.set_column(2, "learning_rate", pa.array(rates)))
    elif attack == "rate":
        rewrite(folder, "schedule.arrow", schedule.set_column(2, "learning_rate", pa.array(-rates)))
    elif attack == "rows":
        rewrite(folder, "images.arrow", images.slice(0, 11))
    elif attack == "order":
        rewrite(folder, "schedule.arrow", schedule.take([1, 0, 2, 3, 4, 5]))
    elif attack == "shape":
        rewrite(folder, "images.arrow", images.set_column(3, "image", nested(np.zeros((12, 2, 4, 5), np.float32))))
    elif attack == "weights":
        rewrite(folder, "weights.arrow", weights.set_column(1, "shape", pa.array([[9, 9], [2]], pa.list_(pa.int32()))))
    else:
        rewrite(folder, "images.arrow", images.set_column(3, "image", pa.array([b"x"] * 12)))
    with pytest.raises(UserError, match=r"a\.distilled"):
        load(folder)


def test_other_versions_and_unknown_settings(artifact, tmp_path):
    folder = tmp_path / "a.distilled"
    save(artifact, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 9}))
    with pytest.raises(UserError, match="format 9; this raydistill reads 3"):
        load(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"config": {"dataset": "digits", "hack": 1}}))
    with pytest.raises(UserError, match="hack"):
        load(folder)


def test_a_place_that_cannot_be_written(artifact, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save(artifact, tmp_path / "file" / "a.distilled")
    with pytest.raises(UserError, match="not a place"):
        save(artifact, "nosuchscheme://bucket/a.distilled")
