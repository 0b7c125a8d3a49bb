"""Data that changed since something was made from them: refused in a line, or gone on with and told."""

import json
import shutil

import numpy as np
import pytest
from pictures import write_classes
from PIL import Image
from typer.testing import CliRunner

from raydistill import load
from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.data import decoding, is_same, load_dataset
from raydistill.data.identity import identity

REFUSED = "was made from other data than dataset="
SMALL = {
    "network": {"name": "convnet", "width": 2, "depth": 1},
    "epochs": 1,
    "iterations": 4,
    "eval_every": 2,
    "batch_size": 8,
}


def command(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output + done.stderr
    return " ".join((done.output if code == 0 else done.stderr).split())


def result(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--json")])
    assert done.exit_code == 0, done.output + done.stderr
    return json.loads(done.output.splitlines()[-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures, and a run's folder that was made from them."""
    root = tmp_path_factory.mktemp("made")
    write_classes(root / "data", ["a", "b"], 20)
    settings = [f"--set={name}={value}" for name, value in {"dataset": f"folder:{root / 'data'}", **SMALL}.items()]
    command("distill", *settings, "--out", root / "run")
    return root


@pytest.fixture
def changed(made):
    """While a test runs, one picture is another one."""
    file = made / "data" / "a" / "03.png"
    before = file.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    yield made
    file.write_bytes(before)


@pytest.mark.parametrize("name", ["evaluate", "baselines"])
def test_an_artifact(made, name, tmp_path):
    artifact, few = made / "run" / "best.distilled", ("--draws", 2) if name == "baselines" else ()
    assert "other_data" not in result(name, artifact, *few)


@pytest.mark.parametrize("name", ["evaluate", "baselines"])
def test_an_artifact_and_other_data(changed, name):
    artifact, few = changed / "run" / "best.distilled", ("--draws", 2) if name == "baselines" else ()
    said = command(name, artifact, *few, code=2)
    assert f"the distilled set: {REFUSED}folder:{changed / 'data'} holds now" in said
    assert said.endswith("--allow-other-data")
    assert result(name, artifact, *few, "--allow-other-data")["other_data"] is True


@pytest.mark.slow
def test_a_run_that_goes_on(changed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(changed / "run", folder)
    assert f"{folder}: {REFUSED}" in command("distill", "--resume", folder, code=2)
    assert load(folder / "best.distilled").provenance.get("other_data") is None
    assert result("distill", "--resume", folder, "--allow-other-data")["other_data"] is True
    assert load(folder / "best.distilled").provenance["other_data"] is True
    assert result("distill", "--resume", folder)["other_data"] is True  # it stays so


def test_a_run_that_goes_on_with_its_data(made, tmp_path):
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copytree(made / "data", tmp_path / "moved")
    assert "other_data" not in result("distill", "--resume", tmp_path / "run")


def test_the_flag_is_for_resume():
    for arguments in (["distill"], ["sweep", "sweeps/digits.yaml"]):
        assert "--allow-other-data: is for --resume" in command(*arguments, "--allow-other-data", code=2)


@pytest.mark.slow
def test_a_sweep_that_goes_on(changed, tmp_path):
    sweep = tmp_path / "sweep.yaml"
    content = {
        "name": "small",
        "storage": str(tmp_path / "runs"),
        "base": {"dataset": f"folder:{changed / 'data'}", **{k: v for k, v in SMALL.items() if k != "iterations"}},
        "search": {"inner_lr": {"loguniform": [0.01, 0.1]}},
        "objectives": {"val_accuracy": "max"},
        "budget": {"trials": 1, "iterations": 4, "concurrent": 1},
        "scheduler": "none",
    }
    sweep.write_text(json.dumps(content))
    command("sweep", sweep)
    for file in (changed / "data" / "b").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    said = command("sweep", sweep, "--resume", code=2)
    assert f"{tmp_path / 'runs' / 'small'}: {REFUSED}" in said
    command("sweep", sweep, "--resume", "--allow-other-data")
    assert json.loads((tmp_path / "runs" / "small" / "data.json").read_text())["other_data"] is True


def test_another_decoder_is_not_other_data(made, monkeypatch):
    """Pixels of a JPEG differ by one or two between versions of libjpeg."""
    config = DistillConfig(dataset=f"folder:{made / 'data'}")
    before = load_dataset(config)
    plain = decoding._decoded
    monkeypatch.setattr(decoding, "_decoded", lambda *arguments: plain(*arguments) ^ 1)
    after = load_dataset(config)
    assert after.fingerprint != before.fingerprint
    assert is_same(after, identity(before))


def test_other_labels_are_other_data(made, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    (tmp_path / "data" / "a" / "03.png").rename(tmp_path / "data" / "b" / "99.png")
    before, after = (load_dataset(DistillConfig(dataset=f"folder:{root / 'data'}")) for root in (made, tmp_path))
    assert not is_same(after, identity(before))


def test_moved_data_are_the_same(made, tmp_path):
    shutil.copytree(made / "data", tmp_path / "elsewhere")
    config = {"data": {"val_fraction": 0.2, "split_seed": 3}}
    before = load_dataset(DistillConfig(dataset=f"folder:{made / 'data'}"))
    after = load_dataset(DistillConfig(dataset=f"folder:{tmp_path / 'elsewhere'}", **config))
    assert is_same(after, identity(before))
    assert identity(before).keys() == {"dataset_fingerprint", "dataset_encoded"}
