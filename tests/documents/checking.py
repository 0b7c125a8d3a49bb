"""What can be said of a command without running it: its programs know its options, its settings and files are there."""

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from ray.scripts.scripts import cli as ray_cli
from reading import ROOT, commands, without_uv

from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import with_overrides
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.sections import path_of
from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import run_settings, sweep_values

GROUPS = {"raydistill": typer.main.get_command(app), "ray": ray_cli}
FILE = re.compile(r"(?:file://)?((?!s3:|gs:|/|~|my\.)[\w./-]+(?:\.(?:yaml|json|py)|/Dockerfile))")


def check(words: list[str]) -> None:
    """Raises unless a command could be run as it stands, but for what it needs beside this repository."""
    if words[:2] == ["uv", "run"]:
        check_extras(words)
    name, *rest = without_uv(words)
    for word in rest:
        if found := FILE.fullmatch(word):
            assert local(found[1]).exists(), f"{words}: there is no {found[1]}"
    if name in GROUPS and rest and rest != ["--help"]:
        parameters = parsed(name, rest)
        if name == "raydistill":
            check_settings(rest[0], parameters)
        for inner in inner_commands(rest):
            check(inner)


def check_extras(words: list[str]) -> None:
    """`--extra NAME` is one of pyproject.toml's."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for option, value in itertools.pairwise(words):
        assert option != "--extra" or value in extras, words


def parsed(name: str, words: list[str]) -> dict[str, Any]:
    """The parameters that a command line has for its command; click's error where it takes it not."""
    command = GROUPS[name]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"{name} has no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if not words:  # only named
        return {}
    return dict(command.make_context(command.name, list(words)).params)


def check_settings(command: str, parameters: dict[str, Any]) -> None:
    """The settings of a command line are those of its command, and go together."""
    overrides = parameters.get("overrides") or []
    match command:
        case "sweep" if not parameters.get("resume") and parameters:
            source = str(local(parameters["source"]))
            validated(SweepConfig, with_overrides(sweep_values(source), overrides, SweepConfig))
        case "distill" | "pretrain":
            file = parameters.get("config")
            values = run_settings(read_yaml(ROOT / file), file) if file and file.name != "my.yaml" else {}
            model = DistillConfig if command == "distill" else PretrainConfig
            validated(model, with_overrides(values, overrides, model))


def local(path: str) -> Path:
    """A file of this repository, which on a cluster's head lies in the folder `raydistill`."""
    return ROOT / path if (ROOT / path).exists() else ROOT / path.removeprefix("raydistill/")


def inner_commands(words: list[str]) -> Iterator[list[str]]:
    """What Ray is to run elsewhere: `ray submit FILE cli.py -- ...`, `ray job submit -- ...`, `ray exec FILE '...'`."""
    if "--" in words:
        inner = words[words.index("--") + 1 :]
        yield inner if inner[0] in GROUPS else ["raydistill", *inner]
    if words[0] == "exec":
        yield from commands(words[-1])


def check_options(text: str) -> None:
    """Options that a sentence names are some command's; settings that it sets are some configuration's."""
    words = shlex.split(text)
    known = {name for group in GROUPS.values() for command in all_commands(group) for name in options(command)}
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if option.startswith("-"):
            assert option.partition("=")[0] in known, f"{option} is no option"
        if option == "--set" and "=" in value and value != "NAME=VALUE":
            name = value.partition("=")[0].removeprefix("search.")
            models = (DistillConfig, PretrainConfig, SweepConfig)
            assert any(path_of(model, name) for model in models), f"{value}: there is no such setting"


def all_commands(command: Any) -> Iterator[Any]:
    """A command and those below it."""
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from all_commands(below)


def options(command: Any) -> list[str]:
    """The spellings of a command's options."""
    return [name for parameter in command.params for name in parameter.opts]
