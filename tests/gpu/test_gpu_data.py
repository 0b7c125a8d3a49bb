"""Real data on a GPU: bytes there, and the numbers of a CPU when they are taken."""

import pytest
import torch

from raydistill.config.augment_settings import Transforms
from raydistill.data.augment import augmented, draw
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


@pytest.mark.parametrize("balanced", [False, True])
def test_a_batch_is_of_the_cpus_images(cuda, digits, balanced):
    """And drawing it does not wait for the GPU."""
    split = digits.to(cuda).train
    assert split.images.levels.dtype == torch.uint8
    split.sample(1, named_generator(0, "x", cuda), balanced)  # the first one sorts the images by class
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, labels = split.sample(300, named_generator(0, "x", cuda), balanced)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if balanced:
        assert torch.equal(labels.bincount().cpu(), torch.full((10,), 30))
        return
    index = torch.randint(len(split), (300,), generator=named_generator(0, "x", cuda), device=cuda)
    assert torch.equal(images.cpu(), digits.train.images[index.cpu()])
    assert torch.equal(labels.cpu(), digits.train.labels[index.cpu()])


@pytest.mark.parametrize(
    "given",
    [{"shift": 4, "flip": True}, {"rotate": 20, "scale": 1.2, "shift": 2}, {"colour": 1, "cutout": 0.5}],
    ids=str,
)
def test_augmentation_and_its_gradient_are_those_of_the_cpu(device, given):
    """And its gradient has the same bits each time."""
    transforms = Transforms(**given)
    images = torch.randn(50, 3, 16, 18, generator=named_generator(0, "images"))
    draws = draw(50, named_generator(0, "draws"))
    direction = torch.randn(images.shape, generator=named_generator(0, "direction"))

    def both(place):
        mine = images.to(place).requires_grad_()
        result = augmented(mine, transforms, draws.to(place))
        (gradient,) = torch.autograd.grad(result, mine, direction.to(place))
        return result.detach().cpu(), gradient.cpu()

    for here, there in zip(both("cpu"), both(device), strict=True):
        assert torch.allclose(here, there, atol=1e-4)
    assert torch.equal(both(device)[1], both(device)[1])
