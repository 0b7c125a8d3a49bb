"""A Ray or an Optuna outside the tested range is named in one line before anything runs."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from running import run

from raydistill.private_api.versions import TESTED

SWEEP = "name: t\nbase: {eval_every: 2, batch_size: 32}\nsearch: {steps: {int: [1, 2]}}\n"


@pytest.fixture
def pretended(tmp_path):
    """Puts a package of another version before the installed one, for those who ask for its version."""

    def pretend(name, version):
        folder = tmp_path / "pretended" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        return str(folder.parent)

    return pretend


def test_the_lowest_versions_are_those_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = {each.name: each.specifier for each in map(Requirement, project["dependencies"])}
    for name, (lowest, newest) in TESTED.items():
        assert f">={lowest}" in str(wanted[name])
        assert newest in wanted[name]
        assert importlib.metadata.version(name) in wanted[name]


@pytest.mark.parametrize(("name", "old"), [("ray", "2.51.1"), ("optuna", "4.1.0")])
def test_an_older_one_is_refused_before_anything_runs(pretended, tmp_path, name, old):
    (tmp_path / "s.yaml").write_text(SWEEP)
    _, err = run("sweep", "s.yaml", cwd=tmp_path, code=2, PYTHONPATH=pretended(name, old))
    lowest = TESTED[name][0]
    assert err == (f"error: {name} {old}: is older than {lowest}, the lowest that works; install '{name}>={lowest}'\n")
    assert not (tmp_path / "runs").exists()


def test_a_newer_one_is_named_and_used(pretended, tmp_path):
    _, err = run("check", "none.yaml", cwd=tmp_path, code=2, PYTHONPATH=pretended("ray", "2.99.0"))
    newest = TESTED["ray"][1]
    first, second = err.splitlines()
    assert first == (
        f"ray 2.99.0: is newer than {newest}, the newest that was tested; if it fails, install 'ray=={newest}.*'"
    )
    assert second.startswith("error: none.yaml")


def test_another_patch_of_the_newest_is_not_named(pretended, tmp_path):
    _, err = run("check", "none.yaml", cwd=tmp_path, code=2, PYTHONPATH=pretended("ray", TESTED["ray"][1] + ".99"))
    assert len(err.splitlines()) == 1
