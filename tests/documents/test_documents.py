"""README.md and docs/*.md: every command and every block of Python is run, or checked, or has a reason why not.

A new block or command that stands in none of the tables below fails. Enter it in SMALL, with what makes it a matter of
seconds, or in EXCEPTIONS, with the reason; what raydistill or Ray would not take, and files that are not there, fail
even so.
"""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from checking import check, check_options
from clone import SWEEP, Clone
from reading import PAGES, ROOT, Block, blocks, commands, lines, spans, without_uv

from raydistill import evaluate, load
from raydistill.config.augment_settings import Transforms
from raydistill.config.recipe_settings import AdamRecipe, ScheduleRecipe, SgdRecipe
from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import sweep_values
from raydistill.data import load_dataset
from raydistill.networks import ConvNet

SMALL = {  # the first words of a command -> what is added, so that it takes seconds
    SWEEP: "--set budget.trials=2 --set budget.iterations=4 --set budget.concurrent=2 --set base.eval_every=2 "
    "--set base.choice.steps=3",
    "raydistill sweep sweeps/mnist_fixed.yaml": (
        "--set budget.trials=1 --set budget.iterations=2 --set budget.concurrent=1 --set base.eval_every=2 "
        "--set base.choice.steps=3 "
        "--set resources.gpu=0"  # there is none
    ),
    "raydistill sweep --resume runs/NAME": "",
    "raydistill sweep --resume STORAGE/NAME": "",
    "raydistill stop runs/NAME": "",
    "raydistill stop STORAGE/NAME": "",
    "raydistill status runs/NAME": "",
    "raydistill status STORAGE/NAME": "",
    "raydistill distill --set dataset=mnist --set network": (
        "--set iterations=2 --set eval_every=1 --set choice.steps=3"
    ),
    "raydistill distill --set dataset=mnist --set objective": (
        "--set iterations=2 --set epochs=1 --set val_nets=1 --set test_nets=1 --set choice.steps=3"
    ),
    "raydistill distill --resume FOLDER": "",
    "raydistill pretrain --set dataset=usps": "--set nets=4 --set epochs=1",
    "raydistill baselines": "--draws 1",
    "raydistill evaluate ARTIFACT": "",
    "raydistill show ARTIFACT": "",
    "duckdb -c": "",
}
EXCEPTIONS = {  # the first words of a command -> why it is not run
    "pip install ": "installs; .ci/run begins with it",
    "uv lock": "asks the package registry",
    "pytest": "this is one of its tests",
    "bash .ci/versions": "installs several environments, for minutes",
    "raydistill doctor": "half a minute; tests/doctor run it",
    "raydistill check": "needs a token and the cloud's libraries; tests/cluster/test_cluster_file.py runs it",
    "raydistill distill my.yaml": "the reader's own file",
    "raydistill distill sweeps/paper/": "hours; docs/reproduction.md holds the results",
    "raydistill distill sweeps/cpu/": "half an hour and more, likewise",
    "raydistill status s3://": "a bucket in the cloud; tests/sweep/test_s3.py has one of its own",
    "raydistill stop s3://": "likewise",
    SWEEP + " --set storage=s3": "likewise",
    "ray ": "needs a cluster; tests/cluster have one",
    "umask": "of the shell",
    "export RAY_AUTH_MODE": "of the shell",
    "aws ": "needs an account",
    "docker ": "needs docker",
    "kubectl ": "needs Kubernetes",
    "tensorboard ": "a server that does not end; tests/sweep read what it reads",
    "optuna-dashboard ": "likewise; tests/sweep/test_journal.py opens what it opens",
    "nvidia-cuda-mps-control": "needs a GPU",
    "python benchmarks/reproduce.py": "hours",
}
SHOWN = {  # the first words of a block that is not typed -> what it is
    "ray                   fails": "a line of the doctor's",
    "error: cluster.yaml": "an error message",
    "scheduler:": "settings, which a test reads",
    "flowers/": "folders of images; tests/data/test_layouts.py reads such",
}
EXPRESSION = re.compile(r"\w+\.\w+\(")  # a line of Python in a block of shell


def entry(words: list[str]) -> str | None:
    """The longest entry of the tables that a command begins with."""
    text = " ".join(without_uv(words))
    return max((start for start in (*SMALL, *EXCEPTIONS) if text.startswith(start)), key=len, default=None)


def is_run(words: list[str]) -> bool:
    return entry(words) not in EXCEPTIONS


def check_entry(words: list[str]) -> None:
    assert entry(words), f"{' '.join(words)!r} is new: enter it in SMALL or EXCEPTIONS of {Path(__file__).name}"


def typed(block: Block) -> list[list[str]]:
    """The commands of a block that are run or checked."""
    if any(block.text.startswith(start) for start in SHOWN):
        return []
    return [words for line in lines(block) if not EXPRESSION.match(line) for words in commands(line)]


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.kind == "python"]
SHELL = [block for block in ALL if block.kind not in ("python", "text")]
SAID = {page.name: spans(page) for page in PAGES}
SENTENCES = [text for said in SAID.values() for text in said if text[0] != "-" and len(text.split()) > 2]


@pytest.fixture(scope="module")
def clone(local_ray, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Clone(folder, SMALL)


def succeeds(clone, words):
    check_entry(words)
    code, output = clone.run(words)
    if words[:2] == ["raydistill", "stop"]:  # what has ended does not run, and is told so
        assert (code, "does not run (done" in output) == (2, True), output
    else:
        assert code == 0, output


@pytest.mark.parametrize("block", [b for b in SHELL if any(map(is_run, typed(b))) or EXPRESSION.match(b.text)], ids=str)
def test_commands_in_blocks(clone, block):
    for words in filter(is_run, typed(block)):
        succeeds(clone, without_uv(words))
    for line in filter(EXPRESSION.match, lines(block)):
        exec(f"import {line.partition('.')[0]}\nassert len({line})", {})


@pytest.mark.parametrize(
    "text", [text for text in SENTENCES if not text.startswith("from") and is_run(shlex.split(text))]
)
def test_commands_in_sentences(clone, text):
    succeeds(clone, without_uv(shlex.split(text)))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_in_blocks(clone, block):
    exec(compile(clone.filled(block.text), str(block), "exec"), {})


def test_each_library_gives_the_first_image(clone):
    [block] = [block for block in PYTHON if "duckdb" in block.text]
    names: dict[str, Any] = {}
    found = 0
    for line in clone.filled(block.text).splitlines():
        exec(line, names)
        if line.startswith("image ="):
            found += 1
            assert names["image"].dtype == np.float32
            assert np.array_equal(names["image"], load(names["folder"]).distilled.images[0, 0].numpy())
    assert found == 5


@pytest.mark.parametrize("text", [text for text in SENTENCES if text.startswith("from")])
def test_python_in_sentences(text):
    exec(text, {})


RECIPES = {
    "as chosen": None,
    "schedule": ScheduleRecipe(),
    "adam": AdamRecipe(steps=20, batch=4, augment=Transforms(shift=1, rotate=10), loss="squared_error", warm_up=5),
    "sgd": SgdRecipe(steps=20, weight_decay=0.01),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_set_with_its_own_initial_weights(clone, name, monkeypatch):
    """README's loop, with the network that it names: what `evaluate` finds, by whatever recipe."""
    text, lazy = clone.filled(PYTHON[0].text), "net = torch.nn.Sequential"
    [old] = [line for line in text.splitlines() if line.startswith(lazy)]
    new = "net = ConvNet(artifact.image_shape, len(artifact.class_names), width=32, depth=2)"
    new += "; net.load_state_dict(artifact.weights)"
    names: dict[str, Any] = {"ConvNet": ConvNet}
    if RECIPES[name] is not None:
        monkeypatch.setattr("raydistill.load", lambda path: replace(load(path), recipe=RECIPES[name]))
    exec(text.replace(old, new), names)
    test = load_dataset(names["artifact"].config).test
    assert RECIPES[name] in (None, names["artifact"].recipe)
    accuracy = (names["net"](test.images[:]).argmax(1) == test.labels).float().mean().item()
    assert accuracy == pytest.approx(evaluate(names["artifact"]).accuracy, abs=0.003)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_what_is_not_run_could_be(block):
    for words in typed(block):
        check_entry(words)
        check(words)


@pytest.mark.parametrize("page", SAID)
def test_sentences(page):
    for text in SAID[page]:
        if text.startswith("-"):
            check_options(text)
        elif not text.startswith("from"):
            for words in commands(text):
                if len(without_uv(words)) > 2:
                    check_entry(words)
                check(words)


def test_every_entry_is_of_some_use():
    """What has gone from the documents goes from the tables."""
    found = [" ".join(without_uv(words)) for block in SHELL for words in typed(block)]
    found += [text for said in SAID.values() for text in said]
    for start in (*SMALL, *EXCEPTIONS):
        assert any(start in text for text in found), start
    for start in SHOWN:
        assert any(block.text.startswith(start) for block in SHELL), start


def test_something_new_is_not_passed_over():
    for text in ("raydistill evaluate s3://bucket/a.distilled", "curl https://example.org", "raydistill train"):
        with pytest.raises(AssertionError, match="is new"):
            check_entry(text.split())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("raydistill sweep sweeps/digits.yaml --fast", "--fast"),
        ("raydistill sweep sweeps/digits.yaml --set budget.trails=3", "budget.trails"),
        ("raydistill sweep sweeps/none.yaml", "none.yaml"),
        ("raydistill distill --set stepz=3", "stepz"),
        ("raydistill train", "no command train"),
        ("uv run --extra gcp ray up cluster.yaml", "gcp"),
        ("ray up none.yaml", "none.yaml"),
        ("ray down --now cluster.yaml", "--now"),
        (
            "ray submit cluster.yaml raydistill/cli.py -- sweep raydistill/sweeps/digits.yaml --set budget.x=1",
            "budget.x",
        ),
        ("ray exec cluster.yaml 'raydistill starts'", "no command starts"),
        ("kubectl apply -f deploy/none.yaml", "none.yaml"),
        ("aws iam create-role --assume-role-policy-document file://deploy/aws/none.json", "none.json"),
    ],
)
def test_what_could_not_be_run_is_noticed(command, words):
    with pytest.raises(Exception, match=re.escape(words)):
        check(shlex.split(command))


def test_settings_in_a_block():
    [block] = [block for block in ALL if block.text.startswith("scheduler:")]
    validated(SweepConfig, sweep_values(str(ROOT / "sweeps" / "digits.yaml")) | yaml.safe_load(block.text))
