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


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["unroll", "ridge"])
def test_a_run_does_not_wait_for_libraries_that_it_does_not_need(solver):
    """Sympy alone takes 0.3 s, in each trial's process."""
    code = f"""
import sys
from raydistill.config.distill_config import DistillConfig
from raydistill.data import load_dataset
from raydistill.runs.run import Run
changes = {{"weights": "random", "network": "convnet", "data.augment": {{"shift": 1, "on": "paired"}}}}
changes |= {{"choice.steps": 1, "choice.nets": 1, "network.width": 4, "batch_size": 16}}
changes |= {{"solver": "ridge", "labels": {{"learned": "free"}}}} if "{solver}" == "ridge" else {{}}
config = DistillConfig(dataset="digits", iterations=1, val_nets=1, test_nets=1).changed(changes)
run = Run(config, load_dataset(config))
run.advance()
run.test()
print({{"sympy", "matplotlib", "ray", "optuna", "torch._dynamo", "torch._inductor"}} & {{*sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
