"""Bytes that are normalised as they are taken, against the tensor of numbers that they stand for, to the last bit."""

from dataclasses import replace

import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Split, load_dataset
from raydistill.data.pixels import Pixels
from raydistill.data.sources import read_source
from raydistill.method.distiller import PARTS
from raydistill.method.objective import Objective
from raydistill.method.rng import named_generator
from raydistill.runs.run import Run

INDICES = {
    "numbers": torch.tensor([7, 0, 7, 39]),
    "a table of numbers": torch.tensor([[3, 2], [1, 0], [39, 38]]),
    "one number": torch.tensor(5),
    "no numbers": torch.tensor([], dtype=torch.int64),
    "mask": torch.arange(40) % 3 == 1,
    "slice": slice(3, 9),
    "nothing": slice(0),
    "int": 4,
}


def normalised(levels, mean, std):
    """All at once, as plain tensors."""
    return levels.float().div_(255).sub_(mean[:, None, None]).div_(std[:, None, None])


def numbers(split):
    return Split(normalised(split.images.levels, split.images.mean, split.images.std), split.labels)


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last])
def pixels(request):
    levels = torch.arange(40 * 3 * 5 * 7).mul(89).view(40, 3, 5, 7).to(torch.uint8)
    assert len(levels[:, 1].unique()) == 256
    mean, std = torch.rand(2, 3, generator=named_generator(0, "moments"))
    return Pixels(levels.to(memory_format=request.param), mean, std)


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_are_indexed_like_their_tensor(pixels, index):
    tensor = normalised(pixels.levels, pixels.mean, pixels.std)
    assert (len(pixels), pixels.shape) == (len(tensor), tensor.shape)
    assert torch.equal(pixels[:], tensor)
    taken, expected = pixels[index], tensor[index]
    assert torch.equal(taken, expected)
    assert taken.stride() == expected.stride()  # a convolution may add in another order
    if index is not INDICES["one number"] and not isinstance(index, int):
        some = pixels.at(index)
        assert some.levels.dtype == torch.uint8
        assert torch.equal(some[:], expected)


def test_a_look_up_is_the_same_to_the_last_bit(pixels):
    """What a GPU does, on the CPU."""
    taken = pixels.looked_up(pixels.levels)
    assert torch.equal(taken, pixels[:])
    assert taken.stride() == pixels[:].stride()


@pytest.mark.parametrize("size", [1, 7, 20, 100])
def test_split_gives_the_blocks_of_their_tensor(pixels, size):
    for some in (pixels, pixels.at(slice(0))):
        for mine, block in zip(some.split(size), some[:].split(size), strict=True):
            assert torch.equal(mine, block)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_real_data_are_what_they_were_as_numbers(dataset, request):
    folder = None if dataset == "digits" else request.getfixturevalue("real_data")
    config = DistillConfig(dataset=dataset)
    data, raw = load_dataset(config, folder), read_source(config, folder)
    assert data.test.images.levels.nbytes == raw.test.images.size
    assert torch.equal(data.test.images[:], normalised(torch.from_numpy(raw.test.images), data.mean, data.std))


@pytest.mark.parametrize("balanced", [False, True])
def test_a_split_draws_the_same_from_bytes_as_from_numbers(digits, balanced):
    drawn = [split.sample(50, named_generator(0, "x"), balanced) for split in (digits.val, numbers(digits.val))]
    assert all(torch.equal(mine, other) for mine, other in zip(*drawn, strict=True))


def test_the_examples_of_a_class_stay_bytes(digits):
    some, everything = Objective((3, 5)).sources(digits.train)
    assert everything is digits.train
    assert some.images.levels.dtype == torch.uint8
    assert torch.equal(some.images[:], numbers(digits.train).only(3).images)


@pytest.mark.slow
@pytest.mark.parametrize("update", [{}, {"weights": "random", "images.init": "real", "data.augment.shift": 2}])
def test_distils_the_same_from_bytes_as_from_numbers(digits, small, update):
    other = replace(digits, **{name: numbers(getattr(digits, name)) for name in ("train", "val", "test")})
    mine, expected = (Run(small.changed(update), data) for data in (digits, other))
    for run in (mine, expected):
        while not run.done:
            run.advance()
    for name in PARTS:
        assert torch.equal(getattr(mine.distiller.learned, name), getattr(expected.distiller.learned, name))
    results = [
        {name: value for name, value in run.test().items() if not name.endswith("_seconds")} for run in (mine, expected)
    ]
    assert results[0] == results[1]
