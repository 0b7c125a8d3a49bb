"""What was typed is what is meant: texts, seeds, folders with odd names, the home folder, and the commands printed."""

import os
import shlex
from pathlib import Path

import pytest
from running import QUICK, images_by_class, last_json, run
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import with_overrides
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import MOST_SEED, flat, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import sweep_values
from raydistill.data import load_dataset
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home, exists, join, open_place, split

ODD = "a b#c [x] ?k=v&l %20 'q' \"r\" :smile: é日 $HOME"  # of a folder; each of these meant something somewhere
TEXTS = ("a #b", "a: b", "yes", "no", "1e3", "007", "~", "[x]", "{x: y}", "'x'", '"x"', "a=b", "*x", "&x", " x ", "- x")


def nested(name, value):
    """The value in the sections that a dotted name says."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_is(text):
    for name in ("dataset", "data.image_column", "data.label_column", "bank", "network.name", "objective.attacked"):
        assert with_overrides({}, [f"{name}={text}"], DistillConfig) == nested(name, text)
    assert with_overrides({}, [f"dataset={text}"], PretrainConfig) == {"dataset": text}
    for name in ("name", "storage", "published.source", "base.dataset", "base.data.label_column"):
        values = with_overrides({}, [f"{name}={text}"], SweepConfig)
        for part in name.split("."):
            values = values[part]
        assert values == text


def test_null_is_none_where_none_is_allowed():
    for name in ("data.image_column", "bank", "outer.clip", "labels.lr", "data.image_size"):
        assert with_overrides({}, [f"{name}=null"], DistillConfig) == nested(name, None)
    assert with_overrides({}, ["published=null", "base.bank=null"], SweepConfig) == {
        "published": None,
        "base": {"bank": None},
    }
    named = validated(DistillConfig, with_overrides({}, ["dataset=null"], DistillConfig))
    with pytest.raises(UserError, match="dataset=null: there is no such dataset"):
        load_dataset(named)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("steps=3", 3),
        ("seed=010", 10),  # not eight
        ("inner_lr=1e-3", 0.001),
        ("deterministic=yes", True),
        ("compile=auto", "auto"),
        ("compile=false", False),
        ("objective.attacked=7", 7),
        ("objective.attacked=seven", "seven"),
        ("data.channels=null", None),
        ("outer.clip=0.5", 0.5),
        ("labels=free", "free"),
    ],
)
def test_what_is_no_text_is_read_as_yaml(override, value):
    values = with_overrides({}, [override], DistillConfig)
    assert list(flat(values).values()) == [value]
    if not override.startswith("objective"):  # which needs others beside it
        validated(DistillConfig, values)


def test_lists_and_sections_are_yaml():
    overrides = [
        "search.steps.int=[1, 2]",
        "budget.concurrent=auto",
        "scheduler=none",
        "resources.gpu=0.25",
        "name=007",
    ]
    config = validated(SweepConfig, with_overrides({}, overrides, SweepConfig))
    assert (config.search["steps"].ends, config.budget.concurrent, config.scheduler) == ((1, 2), "auto", "none")
    assert (config.resources.gpu, config.name) == (0.25, "007")


@pytest.mark.parametrize("text", ["no", "1e3", "null", "free # or so"])
def test_one_of_some_words_is_named_as_it_was_typed(text):
    with pytest.raises(UserError, match=rf"labels: should be fixed, softmax or free, not '{text}'"):
        validated(DistillConfig, with_overrides({}, [f"labels={text}"], DistillConfig))


SWEEP = "name: t\nsearch: {steps: {int: [1, 2]}}\n"


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1, 10**30])
@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (["distill"], "seed"),
        (["distill"], "data.split_seed"),
        (["pretrain"], "seed"),
        (["pretrain"], "data.split_seed"),
        (["baselines"], "seed"),
        (["sweep", "s.yaml"], "seed"),
        (["sweep", "s.yaml"], "base.seed"),
        (["sweep", "s.yaml"], "base.data.split_seed"),
    ],
)
def test_a_seed_beyond_its_bounds_is_named_with_them(tmp_path, monkeypatch, command, setting, seed):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SWEEP)
    result = CliRunner().invoke(app, [*command, "--set", f"{setting}={seed}"])
    assert result.exit_code == 2
    [line] = result.output.splitlines()
    assert line.startswith("error: ")
    assert f"{setting.removeprefix('base.')}: should be a whole number from 0 to {MOST_SEED}, not {seed}" in line
    assert os.listdir() == ["s.yaml"]


def test_the_ends_of_a_seeds_bounds_work(digits):
    for seed in (0, MOST_SEED):
        validated(DistillConfig, {"seed": seed})
        load_dataset(validated(DistillConfig, {"data.split_seed": seed}))


def test_home_is_home_in_a_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~") == str(tmp_path)
    assert at_home("~/a b") == f"{tmp_path}/a b"
    assert at_home("s3://bucket/~") == "s3://bucket/~"
    assert at_home("a/~/b") == "a/~/b"
    assert at_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    assert open_place("~/x")[1] == f"{tmp_path}/x"


@pytest.mark.parametrize("name", ["a?b=c", "?", "a#b", "a%20b", "[a]", "a b ", "é日", "$a", "*"])
def test_a_local_path_has_no_query(tmp_path, name):
    folder = str(tmp_path / name)
    assert join(folder, "x", "y") == f"{folder}/x/y"
    assert split(f"{folder}/x") == (folder, "x")
    os.makedirs(open_place(join(folder, "x"))[1])
    assert exists(join(folder, "x"))
    assert os.listdir(tmp_path) == [name]
    assert join("s3://b/c?region=x", "y") == "s3://b/c/y?region=x"
    assert split("s3://b/c?region=x") == ("s3://b?region=x", "c")


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A run whose data, folder and home have odd names: its home, what was printed, and the errors."""
    home = tmp_path_factory.mktemp("home") / ODD
    images_by_class(home / "data [a] #1?", ["a", "b"])
    out, err = run(
        *(
            "distill",
            *QUICK,
            "--set",
            "dataset=folder:~/data [a] #1?",
            "--out",
            "~/run [/b]?",
            "--json",
            "--data-dir",
            "data [x]",
        ),
        cwd=home,
        HOME=str(home),
    )
    return home, out, err


@pytest.mark.slow
def test_a_run_at_home_with_odd_names(odd_run):
    home, out, _ = odd_run
    assert sorted(p.name for p in home.iterdir() if not p.name.startswith(".")) == ["data [a] #1?", "run ["]
    assert last_json(out)["artifact"] == f"{home}/run [/b]?/best.distilled"
    assert "folder:~/data [a] #1? (" in out


@pytest.mark.slow
def test_printed_commands_can_be_typed(odd_run):
    home, out, _ = odd_run
    after = out.partition("look at the images")[2].splitlines()[1:]
    printed = [shlex.split(line.replace("  uv run ", "")) for line in after if line.startswith("  ")]
    assert printed == [
        ["raydistill", "show", f"{home}/run [/b]?/best.distilled", "-o", "grid.png"],
        ["tensorboard", "--logdir", f"{home}/run [/b]?"],
        [
            "raydistill",
            "evaluate",
            f"{home}/run [/b]?/best.distilled",
            "--network",
            "convnet",
            "--data-dir",
            "data [x]",
        ],
    ]


@pytest.mark.slow
def test_every_command_finds_it_at_home(odd_run, monkeypatch, tmp_path):
    home, _, _ = odd_run
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)

    def said(*arguments, code=0):
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == code, result.output
        return result.output

    assert "2 images" in said("evaluate", "~/run [/b]?/best.distilled", "--seed", "3", "--json")
    assert "drawn to ~/p [b].png" in said("show", "~/run [/b]?/best.distilled", "-o", "~/p [b].png")
    assert (home / "p [b].png").stat().st_size > 1000
    assert "distilled" in said("baselines", "~/run [/b]?/best.distilled", "--draws", "2")
    refused = said("distill", "--out", "~/run [/b]?", code=2)
    assert f"{home}/run [/b]?: is not an empty folder" in refused
    assert shlex.split(refused.partition("that run: ")[2]) == ["--resume", f"{home}/run [/b]?"]
    seed = f"seed=-1: should be a whole number from 0 to {MOST_SEED}"
    assert seed in said("evaluate", "~/run [/b]?/best.distilled", "--seed", "-1", code=2)
    assert "epochs=0: at least 1" in said(
        "evaluate", "~/run [/b]?/best.distilled", "--recipe", "schedule", "--epochs", "0", code=2
    )
    for arguments in (
        ["status", "~/none [x]"],
        ["sweep", "~/none.yaml"],
        ["distill", "~/none.yaml"],
        ["distill", "--resume", "~/none [x]"],
        ["check", "~/none.yaml"],
        ["distill", "--set", "weights=random_pretrained", "--set", "bank=~/none [x]"],
        ["distill", "--set", "dataset=parquet:~/none [x]"],
    ):
        assert "none" in said(*arguments, code=2)
    assert os.listdir(tmp_path) == []  # no folder named ~


def test_the_data_folder_may_be_at_home(monkeypatch, tmp_path):
    from raydistill.data.sources import data_folder

    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder("~/d [x]") == tmp_path / "d [x]"
    monkeypatch.setenv("RAYDISTILL_DATA", "~/e?")
    assert data_folder() == tmp_path / "e?"


def test_a_sweeps_folder_is_found_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "s?x" / "t").mkdir(parents=True)
    (tmp_path / "s?x" / "t" / "sweep.json").write_text('{"name": "old", "search": {"steps": {"int": [1, 2]}}}')
    values = sweep_values("~/s?x/t")
    assert (values["storage"], values["name"]) == (f"{tmp_path}/s?x", "t")


@pytest.mark.slow
def test_a_bank_at_home_with_an_odd_name(tmp_path):
    home = tmp_path / ODD
    home.mkdir()
    out, _ = run(
        *("pretrain", "--set", "nets=3", "--set", "epochs=1", "--out", "~/bank [b]?", "--json"),
        cwd=home,
        HOME=str(home),
    )
    assert last_json(out)["bank"] == f"{home}/bank [b]?"
    printed = next(shlex.split(line) for line in out.splitlines() if line.startswith("  "))
    assert f"bank={home}/bank [b]?" in printed
    nets = ["--set", "weights=fixed_pretrained", "--set", "bank=~/bank [b]?"]
    out, _ = run("distill", *QUICK, *nets, "--json", cwd=home, HOME=str(home))
    assert last_json(out)["nets"] == 1
    assert not (home / "~").exists()


@pytest.mark.slow
def test_an_output_folder_must_have_a_utf8_name(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    _, err = run("distill", *QUICK, "--out", name, cwd=tmp_path, code=2)
    assert err == "error: caf\\xe9: its name is not UTF-8, which Arrow needs; choose another\n"
    assert os.listdir(tmp_path) == []
