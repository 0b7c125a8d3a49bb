"""The check of installed versions against what raydistill, and its dependencies, ask for."""

import platform
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from raydistill.commands.doctor.finding import Finding, Options

SHOWN = ("torch", "torchvision", "ray", "optuna", "pyarrow", "tensorboard")
PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def look_at_versions(options: Options) -> Iterator[Finding]:
    """Check that Python and packages are within pyproject's bounds, and torchvision was made for this torch."""
    own, python, wanted = asked_for()
    parts = [f"python {platform.python_version()}", f"raydistill {own}"]
    parts += [f"{name} {installed(name) or 'missing'}" for name in SHOWN]
    todo = ["install Python " + python] if platform.python_version() not in SpecifierSet(python) else []
    todo += [complaint for each in wanted for complaint in unmet(each)]
    todo += [complaint for each in _requirements("torchvision") if each.name == "torch" for complaint in unmet(each)]
    builds = {name: (installed(name) or "").partition("+")[2] for name in ("torch", "torchvision")}
    if all(builds.values()) and len(set(builds.values())) > 1:
        todo.append(f"torch is built for {builds['torch']}, torchvision for {builds['torchvision']}: reinstall both")
    yield Finding("versions", not todo, ", ".join(parts), "; ".join(todo))


def asked_for() -> tuple[str, str, list[Requirement]]:
    """Return raydistill's version and the Python and packages it asks for: of pyproject.toml, else of its metadata."""
    if PROJECT.exists():
        project = tomllib.loads(PROJECT.read_text())["project"]
        return project["version"], project["requires-python"], [Requirement(text) for text in project["dependencies"]]
    about = metadata("raydistill")
    return about["Version"], about["Requires-Python"], _requirements("raydistill")


def installed(name: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def unmet(wanted: Requirement) -> Iterator[str]:
    """Return what to install where a package is missing or outside its bounds."""
    there = installed(wanted.name)
    if there is None:
        yield f"install '{wanted}'"
    elif not wanted.specifier.contains(there, prereleases=True):
        yield f"{wanted.name} {there} is not {wanted.specifier}: install '{wanted}'"


def _requirements(name: str) -> list[Requirement]:
    """Return the requirements of an installed package, without extras."""
    try:
        found = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]
