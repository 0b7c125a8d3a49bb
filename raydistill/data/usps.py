"""The USPS digits (Hull 1994), in the files of libsvm."""

import bz2
from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.download import downloading
from raydistill.data.mnist import DIGITS
from raydistill.data.raw import Part, RawData, assembled
from raydistill.system.errors import UserError

FILES = ("usps.bz2", "usps.t.bz2")
PIXELS = 16 * 16


def read_usps(config: DataSettings, data_dir: Path) -> RawData:
    """Read 7,291 + 2,007 grey images of 16 x 16 pixels from DIR/usps.bz2 and DIR/usps.t.bz2.

    Raises:
        UserError: the files are not there and cannot be downloaded, or are damaged.
    """
    if not all((data_dir / name).exists() for name in FILES):
        with downloading("usps", data_dir):
            from torchvision import datasets  # Importing takes two seconds; only a download needs it.

            for train in (True, False):
                datasets.USPS(data_dir, train=train, download=True)
    return assembled([_read(data_dir / name) for name in FILES], DIGITS, "usps")


def _read(path: Path) -> Part:
    """Read images and classes of lines `class 1:value ... 256:value`: classes from 1, values in -1..1."""
    try:
        numbers = bz2.decompress(path.read_bytes()).replace(b":", b" ").split()
        table = np.array(numbers, dtype=np.float32).reshape(-1, 1 + 2 * PIXELS)
        labels, places, values = table[:, 0], table[:, 1::2], table[:, 2::2]
        if not (places == np.arange(1, PIXELS + 1)).all() or not np.isin(labels, np.arange(1, 11)).all():
            raise ValueError("pixels or classes out of order")
        if not np.isfinite(values).all():
            raise ValueError("pixels that are no numbers")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: is damaged ({error}); delete it to download it again") from error
    images = ((values.clip(-1, 1) + 1) / 2 * 255).astype(np.uint8)  # torchvision converts them in the same way.
    return Part(images.reshape(-1, 1, 16, 16), labels.astype(np.int64) - 1)
