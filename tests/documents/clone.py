"""A folder as one has it after `git clone`, in which the commands of the documents are run, each once."""

import bz2
import shlex
import struct
from pathlib import Path

import duckdb
import numpy as np
from reading import ROOT
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from raydistill.cli import app

LINKED = ("raydistill", "sweeps", "deploy", "docs", "benchmarks", "cluster.yaml", "pyproject.toml")
SWEEP = "raydistill sweep sweeps/digits.yaml"
DISTILL = "raydistill distill --set dataset=mnist --set network=lenet"


class Clone:
    """A clone in `folder`, which must be the working directory, with data sets beside it.

    Args:
        folder: where to make it.
        small: by the first words of a command what makes it small.
    """

    def __init__(self, folder: Path, small: dict[str, str]) -> None:
        self.folder, self.small = folder, small
        self.done: dict[str, tuple[int, str]] = {}
        self.data = folder / "data"
        self.data.mkdir()
        write_data(self.data)
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)

    def run(self, words: list[str]) -> tuple[int, str]:
        """The exit code of a command and what it prints; it is run once, and small."""
        command = self.filled(shlex.join(words))
        if command not in self.done:
            if words[0] == "duckdb":
                self.done[command] = 0, str(duckdb.sql(words[2]))
            else:
                extra = next(extra for start, extra in self.small.items() if " ".join(words).startswith(start))
                arguments = shlex.split(f"{command} {extra}")[1:]
                result = CliRunner().invoke(app, arguments, env={"RAYDISTILL_DATA": str(self.data), "COLUMNS": "200"})
                self.done[command] = result.exit_code, f"{arguments}\n{result.output}\n{result.exception or ''}"
        return self.done[command]

    def filled(self, text: str) -> str:
        """The text with names that are there in place of NAME, ARTIFACT, FOLDER and the trial of an example."""
        text = text.replace("runs/NAME", "runs/digits").replace("STORAGE/NAME", "runs/digits")
        if "ARTIFACT" in text or "runs/digits" in text:
            text = text.replace("ARTIFACT", "runs/digits/front/trial-1a2b3c4d.distilled")
            text = text.replace("trial-1a2b3c4d.distilled", self.one("runs/digits/front/trial-*", SWEEP).name)
        if "FOLDER" in text:
            text = text.replace("FOLDER", str(self.one("runs/mnist-lenet-*", DISTILL)))
        return text

    def one(self, pattern: str, made_by: str) -> Path:
        """What a command of README leaves."""
        if not any(self.folder.glob(pattern)):
            code, output = self.run(made_by.split())
            assert code == 0, output
        return min(self.folder.glob(pattern)).relative_to(self.folder)


def write_data(folder: Path) -> None:
    """scikit-learn's digits in the forms of MNIST and USPS, a few hundred of them."""
    found = load_digits()
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    large = np.pad(np.kron(found.images * 15, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    small = np.kron(found.images / 8 - 1, np.ones((2, 2))).reshape(-1, 256)
    for mnist, usps, part in (("train", "usps", slice(0, 500)), ("t10k", "usps.t", slice(500, 600))):
        images, labels = large[part], found.target[part]
        (raw / f"{mnist}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *images.shape) + images.tobytes())
        (raw / f"{mnist}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + bytes(labels.tolist()))
        rows = [
            f"{label + 1} " + " ".join(f"{place}:{value:g}" for place, value in enumerate(image, start=1))
            for image, label in zip(small[part], labels, strict=True)
        ]
        (folder / f"{usps}.bz2").write_bytes(bz2.compress("\n".join(rows).encode()))
