"""YAML that stands for more than it looks like is refused at once, wherever YAML is read."""

import time

import pytest
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import read_yaml, validated
from raydistill.system.errors import UserError
from raydistill.system.plain_yaml import YAMLError, parse_yaml

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)
HOSTILE = {
    "laughs": LAUGHS,
    "two deep": "a: &a [1]\nb: &b [*a]\nc: *b\n",
    "merged": "a: &a {x: 1}\nb: &b {<<: *a}\nc: {<<: *b}\n",
    "within itself": "a: &a [*a]\n",
    "a long one often": "a: &a [" + "x, " * 20_000 + "]\nb: [" + "*a, " * 20_000 + "]\n",
    "brackets": "a: " + "[" * 50_000,
    "braces": "a: " + "{b: " * 50_000,
    "a long number": "a: " + "1" * 10_000,
    "no day": "a: 2026-99-99",
    "no number": "a: !!int x",
    "an object": "a: !!python/object/apply:os.system [id]",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", [["distill"], ["pretrain"], ["sweep"], ["baselines"], ["check"]])
def test_hostile_files_are_refused_at_once(tmp_path, monkeypatch, command, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h.yaml").write_text(HOSTILE[kind])
    begin = time.monotonic()
    result = CliRunner().invoke(app, [*command, "h.yaml"])
    assert time.monotonic() - begin < 15
    assert result.exit_code == 2, result.output
    [line] = result.output.splitlines()
    assert line.startswith("error: h.yaml: not valid YAML")
    assert len(line) < 1000


@pytest.mark.parametrize("kind", ["laughs", "brackets", "a long number"])
def test_so_are_hostile_values(kind):
    result = CliRunner().invoke(
        app, ["sweep", "none.yaml", "--set", "search={" + HOSTILE[kind].replace("\n", ", ") + "}"]
    )
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["distill", "--set", f"steps={HOSTILE[kind]}"])
    assert result.exit_code == 2
    assert "the value is not valid YAML" in result.output


def test_the_file_of_ray_up_on_the_head_is_read_so(tmp_path):
    from raydistill.cluster.nodes import _planned

    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(LAUGHS)
    with pytest.raises(YAMLError, match="alias"):
        list(_planned(file))


def test_plain_aliases_are_taken():
    text = "base: &b {x: 1, y: [1, 2]}\none: *b\ntwo: {<<: *b, z: 3}\nlist: [*b, *b]\n"
    base = {"x": 1, "y": [1, 2]}
    assert parse_yaml(text) == {"base": base, "one": base, "two": base | {"z": 3}, "list": [base, base]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0x10", 16),
        ("0b11", 3),
        ("0o17", 15),
        ("1_000", 1000),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("12:30", "12:30"),
        ("a: b: c", None),
        ("null", None),
        ("true", True),
    ],
)
def test_numbers_as_everybody_reads_them(text, value):
    if value is None and text != "null":
        with pytest.raises(YAMLError):
            parse_yaml(text)
        return
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_a_wrong_value_is_cut(tmp_path):
    (tmp_path / "l.yaml").write_text("steps: [" + "1234567890, " * 5000 + "]")
    result = CliRunner().invoke(app, ["distill", str(tmp_path / "l.yaml")])
    assert result.exit_code == 2
    assert len(result.output) < 600


def test_on_is_the_name_of_a_setting(tmp_path):
    assert parse_yaml("{on: 1, No: {off: 2}, a: [on, no]}") == {"on": 1, "No": {"off": 2}, "a": [True, False]}
    file = tmp_path / "run.yaml"
    file.write_text("data: {augment: {rotate: 10, on: paired}}")
    assert validated(DistillConfig, read_yaml(file)).data.augment.on == "paired"


@pytest.mark.parametrize("text", ["1: 2", "data: {true: 1}", "known_good: [{null: 1}]"])
def test_a_name_is_text(tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"run.yaml: (1|True|None): a setting's name should be text"):
        read_yaml(file)
