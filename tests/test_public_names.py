"""What users import."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import raydistill

NAMES = """
    Artifact DistillConfig DistilledSet Diverged PretrainConfig SweepConfig UserError
    compare distill evaluate load pretrain run_sweep save
"""
FILES = [file.with_suffix("") for file in Path(raydistill.__file__).parent.rglob("*.py") if file.stem != "__init__"]
MODULES = [".".join(["raydistill", *file.relative_to(Path(raydistill.__file__).parent).parts]) for file in FILES]


def test_public_names_are_these():
    assert raydistill.__all__ == sorted(NAMES.split(), key=lambda name: (name.islower(), name))


@pytest.mark.parametrize("name", NAMES.split())
def test_each_public_name_can_be_imported(name):
    assert getattr(raydistill, name).__name__ == name


def test_no_module_hides_a_public_name():
    """Importing a module sets it as an attribute of its package."""
    hidden = {module for module in MODULES if module.removeprefix("raydistill.") in NAMES.split()}
    assert not hidden


def test_modules_can_be_imported_under_another_name():
    import raydistill.sweep.searching.search_space as space

    assert space is importlib.import_module("raydistill.sweep.searching.search_space")


def test_the_package_is_imported_without_torch_and_ray():
    code = "import sys, raydistill; print({'torch', 'ray', 'optuna'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
