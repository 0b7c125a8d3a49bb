"""Names of classes are text, whatever their letters mean elsewhere; a picture that fails ends nothing."""

import json
import os

import pyarrow as pa
import pytest
import torch
from running import QUICK, images_by_class, last_json, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydistill.config.distill_config import DistillConfig
from raydistill.data import load_dataset
from raydistill.report.figures import image_grid, write_figure
from raydistill.store.artifact import load
from raydistill.system.storage import readable

ODD = [
    "$x^{$",
    "[bold]b",
    "a_b%c#d",
    "日本 é",
    b"caf\xe9",
    b"\xff\xfe",
    "two\nlines",
    "'q' \"r\" \\n",
    ":smile:",
    "-x",
]
TEXTS = [readable(os.fsdecode(name)) for name in ODD]
BAD_FONT = "font.size: 1000000\n"  # which no font has


@pytest.fixture(scope="module")
def odd_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd") / "data"
    images_by_class(folder, ODD)
    return folder


def test_bytes_that_are_no_text_are_written_out():
    assert readable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert readable(os.fsdecode("é日".encode())) == "é日"
    assert readable("plain \\ $") == "plain \\ $"


def test_class_names_are_text_everywhere(odd_classes):
    names = load_dataset(DistillConfig(dataset=f"folder:{odd_classes}")).class_names
    assert sorted(names) == sorted(TEXTS)
    assert pa.array(names).to_pylist() == list(names)
    assert json.loads(json.dumps(names).encode()) == list(names)


@pytest.mark.slow
def test_a_run_on_odd_classes(tmp_path, odd_classes):
    settings = ["--set", f"dataset=folder:{odd_classes}", "--set", "labels=free"]  # titles with two names each
    out, err = run("distill", *QUICK, *settings, "--out", "r", "--json", cwd=tmp_path)
    assert err == ""
    assert last_json(out)["num_images"] == 10
    artifact = load(tmp_path / "r" / "best.distilled")
    assert sorted(artifact.class_names) == sorted(TEXTS)
    events = EventAccumulator(str(tmp_path / "r"))
    events.Reload()
    assert {"distilled images", "step sizes"} <= set(events.Tags()["images"])
    _, err = run("show", "r/best.distilled", "-o", "g.png", cwd=tmp_path)
    assert err == ""
    assert (tmp_path / "g.png").stat().st_size > 5000
    run("evaluate", "r/best.distilled", cwd=tmp_path)  # its classes are those of the data


@pytest.mark.slow
def test_an_attack_on_a_class_by_its_odd_name(tmp_path, odd_classes):
    data = ["--set", f"dataset=folder:{odd_classes}"]
    run("pretrain", *data, "--set", "nets=4", "--set", "epochs=1", "--set", "batch_size=16", "--out", "b", cwd=tmp_path)
    nets = ["--set", "weights=random_pretrained", "--set", "bank=b", "--set", "val_nets=1", "--set", "test_nets=1"]
    names = ["--set", "objective.attacked=$x^{$", "--set", "objective.target=a_b%c#d"]
    out, _ = run("distill", *QUICK, *data, *nets, *names, "--set", "objective=attack", "--json", cwd=tmp_path)
    assert "test_attack_success" in last_json(out)


@pytest.mark.parametrize("name", ["$", "$a$", r"$\frac{$", "a $ b", "$x_{y$ z$"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_title_is_no_mathematics(tmp_path, name, soft):
    labels = torch.tensor([[[0.6, 0.4], [0.2, 0.8]]]) if soft else torch.eye(2)[None]
    figure = image_grid(torch.rand(1, 2, 1, 5, 5), labels, (name, "b"))
    write_figure(figure, tmp_path / "g.svg")
    assert not figure.axes[0].title.get_parse_math()
    assert name[:10] in figure.axes[0].get_title()


def test_the_users_latex_does_not_read_names(tmp_path):
    import matplotlib
    from matplotlib.text import Text

    with matplotlib.rc_context({"text.usetex": True}):
        figure = image_grid(torch.rand(1, 2, 1, 5, 5), torch.eye(2)[None], ("a_b", "50%"), torch.rand(1, 1))
        write_figure(figure, tmp_path / "g.png")
    assert not any(text.get_usetex() for text in figure.findobj(Text))


@pytest.mark.slow
def test_a_picture_that_fails_ends_no_run(tmp_path):
    (tmp_path / "rc").write_text(BAD_FONT)
    settings = ["--set", "iterations=30", "--set", "eval_every=1"]
    out, err = run(
        "distill", *QUICK, *settings, "--out", "r", "--json", cwd=tmp_path, MATPLOTLIBRC=str(tmp_path / "rc")
    )
    [line] = err.splitlines()
    assert line.startswith("r: TensorBoard's log has gaps: ")
    assert last_json(out)["iterations"] == 30
    events = EventAccumulator(str(tmp_path / "r"))
    events.Reload()
    assert len(events.Scalars("val_accuracy")) == 30


@pytest.mark.slow
def test_a_folder_whose_own_name_is_no_text(tmp_path):
    """Its bytes are kept in the settings, so that everything finds it again."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff [1]")
    images_by_class(folder, ["a", "b"])
    run("distill", *QUICK, "--set", f"dataset=folder:{folder}", "--out", "r", "--json", cwd=tmp_path)
    for command in (["evaluate", "r/best.distilled"], ["distill", "--resume", "r"], ["baselines", "r/best.distilled"]):
        out, _ = run(*command, "--json", cwd=tmp_path)
        assert last_json(out)["num_images"] == 2
