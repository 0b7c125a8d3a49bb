"""Stratified splits and idx files."""

import gzip
import struct

import numpy as np
import pytest

from raydistill.data.idx import read_idx
from raydistill.data.mnist import CLOTHES, DIGITS
from raydistill.data.splits import stratified
from raydistill.system.errors import UserError


@pytest.mark.parametrize("share", [0.1, 0.25, 0.33, 0.5])
def test_shares_of_each_class_and_of_all(share):
    labels = np.repeat(np.arange(7), [10, 11, 13, 17, 30, 52, 99])
    rest, drawn = stratified(labels, share, seed=3)
    assert sorted([*rest, *drawn]) == list(range(len(labels)))
    assert len(drawn) == round(share * len(labels))
    for label in range(7):
        assert abs((labels[drawn] == label).sum() - share * (labels == label).sum()) <= 1
    again, other = stratified(labels, share, seed=3)[1], stratified(labels, share, seed=4)[1]
    assert (drawn == again).all()
    assert (drawn != other).any()


def test_a_class_too_small_to_split_is_named():
    with pytest.raises(ValueError, match="images of class 1"):
        stratified(np.array([0] * 50 + [1]), 0.1, seed=0)


def test_idx_files(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = struct.pack(">IIII", 0x0803, 2, 3, 4) + values.tobytes()
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(content))
    for name in ("plain", "packed"):
        assert (read_idx(tmp_path / name) == values).all()
    for broken in (content[:-1], b"", b"text", struct.pack(">II", 0x0D01, 0)):  # the last: of floats
        (tmp_path / "plain").write_bytes(broken)
        with pytest.raises(UserError, match="plain: is not an idx file"):
            read_idx(tmp_path / "plain")
    packed = gzip.compress(content)
    for broken in (b"text", packed[:-9], packed[:12] + b"\xff" * 9 + packed[21:]):
        (tmp_path / "packed.gz").write_bytes(broken)
        with pytest.raises(UserError, match=r"packed\.gz: cannot be read"):
            read_idx(tmp_path / "packed")


def test_class_names_are_those_of_torchvision():
    from torchvision import datasets

    assert list(DIGITS) == datasets.MNIST.classes
    assert list(CLOTHES) == datasets.FashionMNIST.classes
