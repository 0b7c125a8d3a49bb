"""Data sets of photographs in all sizes: what their readers share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.decoding import Wanted, decode_images
from raydistill.data.raw import Part
from raydistill.system.errors import UserError

PHOTO_SIZE = 224  # Pixels; AlexNet takes this size, and Wang et al. 2018 used it.


def decode_photos(files: Sequence[Path], labels: np.ndarray, config: DataSettings) -> Part:
    """Decode photographs with their classes [M]: by default of 224 pixels and in colours, also the few grey ones.

    Raises:
        UserError: names the first file that is not an image.
    """
    size, channels = config.data.image_size or PHOTO_SIZE, config.data.channels or 3
    names = [str(file) for file in files]
    images, encoded = decode_images(files, names, Wanted(size, channels, config.data.background))
    return Part(images, labels, names, encoded)


def read_rows(path: Path, columns: int) -> list[list[str]]:
    """Return the lines of a text file as lists of that many words; the last word may contain spaces.

    Raises:
        UserError: there is no such file, or it has other lines.
    """
    try:
        rows = [line.split(maxsplit=columns - 1) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); unpack the data again") from error
    for row in rows:
        if len(row) != columns:
            raise UserError(f"{path}: lines must have {columns} words, unlike {' '.join(row)!r}; unpack the data again")
    return [[word.strip() for word in row] for row in rows]
