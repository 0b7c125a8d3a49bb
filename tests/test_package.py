"""What is installed: the files of the wheel, and examples in docstrings that work."""

import doctest
import importlib
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import raydistill

ROOT = Path(raydistill.__file__).parents[1]
WITH_EXAMPLES = [file for file in sorted(ROOT.glob("raydistill/**/*.py")) if ">>> " in file.read_text()]


def test_a_wheel_holds_the_package_its_types_and_its_sources_in_c():
    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {
        "raydistill/__init__.py",
        "raydistill/py.typed",
        "raydistill/kernels/conv_relu_pool/conv_relu_pool.c",
        "raydistill/kernels/norm_relu_pool/norm_relu_pool.c",
    } < files
    assert {file.partition("/")[0] for file in files} == {"raydistill"}


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.stem)
def test_examples_in_docstrings(file):
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
