"""Files and folders that the documents name."""

import re

import pytest
from reading import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:[a-z_]+/)*[a-z_0-9]+\.(?:py|c|yaml|toml))`")
PLACES = (
    "",
    "raydistill",
    "raydistill/kernels",
    "raydistill/kernels/conv_relu_pool",
    "raydistill/kernels/norm_relu_pool",
    "raydistill/networks",
    "raydistill/sweep/surviving",
    "benchmarks",
    "docs",
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_named_file_exists(document):
    named = NAMED.findall(document.read_text())
    assert [name for name in named if not any((ROOT / place / name).exists() for place in PLACES)] == []


def test_the_map_names_each_folder():
    drawn = re.findall(r"^ *([a-z_]+)/ ", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    folders = [file.parent.name for file in (ROOT / "raydistill").rglob("__init__.py")]
    assert sorted(drawn) == sorted(set(folders) - {"raydistill", "doctor"})


def test_the_tests_that_the_check_of_versions_names_are_there():
    named = re.findall(r"tests/[\w/.]+(?:::\w+)?", (ROOT / ".ci/versions").read_text())
    assert len(named) > 10
    for each in named:
        file, _, test = each.partition("::")
        assert (ROOT / file).exists(), each
        assert not test or f"def {test}(" in (ROOT / file).read_text(), each
