"""The house numbers SVHN (Netzer et al. 2011), through torchvision."""

from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.download import downloading
from raydistill.data.mnist import DIGITS
from raydistill.data.raw import Part, RawData


def read_svhn(config: DataSettings, data_dir: Path) -> RawData:
    """Read 73,257 + 26,032 colour images of 32 x 32 pixels from DIR/train_32x32.mat and DIR/test_32x32.mat.

    The files' class 10 is digit 0. Their extra training images are not used, as in Wang et al. 2018.

    Raises:
        UserError: the files are not there and cannot be downloaded, or are damaged.
    """
    with downloading("svhn", data_dir):
        from torchvision import datasets  # It reads with scipy, which scikit-learn depends on.

        train, test = (datasets.SVHN(data_dir, split=split, download=True) for split in ("train", "test"))
    learned, tested = (Part(np.ascontiguousarray(part.data), part.labels) for part in (train, test))
    return RawData(learned, tested, DIGITS)
