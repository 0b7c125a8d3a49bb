"""The file format of MNIST (LeCun, Cortes & Burges 1998)."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from raydistill.system.errors import UserError


def read_idx(path: Path) -> np.ndarray:
    """Read the array of bytes in an idx file, or in the same file with .gz.

    Raises:
        UserError: it is not such a file, or cut short.
    """
    packed = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{packed}: cannot be read ({error}); delete it to download it again") from error
    kind, dimensions = content[2:4] if len(content) > 4 else (0, 0)
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start]) if len(content) >= start else (0,)
    if kind != 8 or len(content) != start + int(np.prod(shape)):  # The kind 8 is unsigned bytes.
        raise UserError(f"{path}: is not an idx file of bytes, or is cut short; delete it to download it again")
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=start).reshape(shape)  # torch wants it writable.
