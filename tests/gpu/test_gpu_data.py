"""Real data on a GPU: bytes there, and the numbers of a CPU when they are taken."""

import pytest
import torch

from raydistill.data.augment import KINDS, augmented
from raydistill.data.pixels import Pixels
from raydistill.method.rng import named_generator

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_of_the_cpu_to_the_last_bit(device, channels):
    generator = named_generator(0, "levels")
    levels = torch.randint(256, (200, channels, 9, 8), dtype=torch.uint8, generator=generator)
    mean, std = torch.rand(2, channels, generator=generator)
    there = Pixels(levels, mean, std)
    here = there.to(device)
    index = torch.randint(200, (5, 60), generator=generator)
    assert here.device == here.levels.device == here[:3].device == device
    assert torch.equal(here[:].cpu(), there[:])
    assert torch.equal(here[index.to(device)].cpu(), there[index])
    assert torch.equal(torch.cat(list(here.split(64))).cpu(), there[:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_of_the_cpus_images(cuda, digits, kind):
    """And drawing it does not wait for the GPU."""
    split = digits.to(cuda).train
    assert split.images.levels.dtype == torch.uint8
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, labels = split.sample(300, named_generator(0, "x", cuda), kind)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    again = named_generator(0, "x", cuda)
    index = torch.randint(len(split), (300,), generator=again, device=cuda)
    expected = augmented(digits.train.images[index.cpu()].to(cuda), kind, again)
    assert torch.equal(images, expected)
    assert torch.equal(labels.cpu(), digits.train.labels[index.cpu()])
