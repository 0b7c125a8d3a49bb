"""The handwritten digits that come with scikit-learn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.raw import Part, RawData, assembled

FILE = "datasets/data/digits.csv.gz"  # In scikit-learn's folder; one line for each image, its class at the end.


def read_digits(config: DataSettings, data_dir: Path) -> RawData:
    """Read the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn contains."""
    pixels, labels = np.split(_table(), [64], 1)
    images = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return assembled([Part(images, labels[:, 0].astype(np.int64))], tuple(str(digit) for digit in range(10)), "digits")


def _table() -> np.ndarray:
    """Return pixels (0 to 16) and class of each image, [1797, 65].

    The file is read as scikit-learn reads it, without an import of scikit-learn, which takes two seconds.
    """
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or []:
        if (file := Path(folder) / FILE).exists():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True))
