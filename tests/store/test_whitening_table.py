"""The whitening in an artifact: read by pyarrow alone, used by evaluate, damaged."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from raydistill import evaluate
from raydistill.config.distill_config import DistillConfig
from raydistill.data import load_dataset
from raydistill.data.whitening import Whitening
from raydistill.report.figures import artifact_grid
from raydistill.runs.distillation import distill
from raydistill.store.artifact import load
from raydistill.store.ipc import to_ipc
from raydistill.store.whitening_table import whitening_table
from raydistill.system.errors import UserError

SETTINGS = {"iterations": 4, "eval_every": 2, "batch_size": 64, "steps": 1, "epochs": 2, "images": {"init": "real"}}
CONFIG = DistillConfig.model_validate({**SETTINGS, "data": {"zca": 0.1}})


@pytest.fixture(scope="module")
def white():
    return load_dataset(CONFIG)


@pytest.fixture(scope="module")
def made(white, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "run"
    distill(CONFIG, out=out, data=white)
    return out / "best.distilled"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "a.distilled")


def test_it_comes_back_bit_for_bit_and_with_it_pixels(white, folder):
    artifact = load(folder)
    assert torch.equal(artifact.whitening.matrix, white.whitening.matrix)
    assert torch.equal(artifact.whitening.mean, white.whitening.mean)
    pixels = artifact.pixels()
    assert torch.allclose(pixels, white.to_pixels(artifact.distilled.images))
    assert -0.5 < pixels.min() < pixels.max() < 1.5  # four iterations away from real images
    assert torch.allclose(artifact.from_pixels(pixels), artifact.distilled.images, atol=1e-4)
    [axes, *_] = artifact_grid(artifact).axes
    low, high = np.quantile(pixels[0, 0], [0.02, 0.98])
    assert np.allclose(axes.images[0].get_array(), ((pixels[0, 0, 0] - low) / (high - low)).clamp(0, 1), atol=1e-4)


def test_pyarrow_alone_brings_images_there_and_back(folder):
    script = f"""
import sys
sys.modules["torch"] = sys.modules["raydistill"] = None
import numpy as np, pyarrow as pa
def read(name):
    return pa.ipc.open_file("{folder}/" + name).read_all()
table = read("whitening.arrow")
assert table.schema.equals(pa.schema({{"mean": pa.float32(), "row": pa.list_(pa.float32(), 64)}}))
mean, matrix = table["mean"].to_numpy(), np.array(table["row"].to_pylist())
images = np.array(read("images.arrow")["image"].to_pylist()).reshape(-1, 64)
np.save("{folder}/../restored.npy", np.linalg.solve(matrix, images.T).T + mean)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    artifact = load(folder)
    restored = torch.tensor(np.load(folder.parent / "restored.npy")).view(artifact.distilled.images.shape)
    expected = restored * artifact.std[:, None, None] + artifact.mean[:, None, None]
    assert torch.allclose(artifact.pixels().double(), expected, atol=1e-4)


def test_evaluate_whitens_by_the_matrix_of_the_artifact(white, folder, monkeypatch):
    expected = evaluate(folder, data=white)

    def no_other(*_):
        raise AssertionError("the matrix was computed again")

    monkeypatch.setattr(Whitening, "of", no_other)
    assert evaluate(folder) == expected


def test_evaluate_refuses_data_that_are_whitened_otherwise(white, digits, folder):
    other = load_dataset(CONFIG.changed({"data.zca": 0.5}))
    for data in (digits, other):
        with pytest.raises(
            UserError, match=r"^data\.zca=0\.1: the given data are not whitened as the artifact's set was"
        ):
            evaluate(folder, data=data)
    plain = distill(DistillConfig.model_validate(SETTINGS), data=digits)
    with pytest.raises(UserError, match=r"^data\.zca: the given data are whitened, the artifact's set was not"):
        evaluate(plain, data=white)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damage_is_named(folder, damage):
    path = folder / "whitening.arrow"
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=rf"^{folder}/whitening\.arrow: (is missing|was changed)"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: Whitening(w.mean, w.matrix.index_fill(0, torch.tensor([3]), torch.nan)), "not finite"),
        (lambda w: Whitening(w.mean, w.matrix.roll(1, 0)), "not symmetric"),
        (lambda w: Whitening(w.mean, torch.zeros(64, 64)), "positive definite"),
        (lambda w: Whitening(w.mean[..., :7], w.matrix[:56, :56]), "56 rows, not 64"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(white, folder, change, message):
    data = to_ipc(whitening_table(change(white.whitening)))
    replace_table(folder, data)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_a_table_of_another_type_is_refused(white, folder):
    table = pa.table({"mean": white.whitening.mean.flatten().double().numpy(), "row": [[0.0]] * 64})
    replace_table(folder, to_ipc(table))
    with pytest.raises(UserError, match="column mean is double, not float"):
        load(folder)


def replace_table(folder, data):
    """Replaces the table and its sum, as an attacker who knows the format would."""
    (folder / "whitening.arrow").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["whitening.arrow"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
