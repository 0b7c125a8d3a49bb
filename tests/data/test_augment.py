"""Crops and flips, against numpy's padding, one image at a time."""

import numpy as np
import pytest
import torch

from raydistill.data.augment import SHIFT, augmented
from raydistill.method.rng import named_generator


def crops(image):
    """All that can become of an image [C, H, W] by numpy's reflection: [81, C, H, W], row shifts first."""
    height, width = image.shape[1:]
    padded = np.pad(image.numpy(), [(0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)], mode="reflect")
    places = [(y, x) for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)]
    return torch.from_numpy(np.stack([padded[:, y : y + height, x : x + width] for y, x in places]))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 9, 6), (1, 4, 3), (1, 1, 5)])
@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_each_image_is_one_of_its_own_crops_or_its_mirror_image(kind, shape):
    images = torch.randn(40, *shape, generator=named_generator(0, "images"))
    before = images.clone()
    results = augmented(images, kind, named_generator(1, "batches"))
    assert torch.equal(images, before)
    assert results.shape == images.shape
    flipped = 0
    for image, result in zip(images, results, strict=True):
        expected = crops(image)
        plain = (expected == result).flatten(1).all(1).any()
        mirrored = (expected.flip(-1) == result).flatten(1).all(1).any()
        assert plain or (mirrored and kind == "crop_flip")
        flipped += int(not plain)
    if kind == "crop_flip" and shape[2] == 32:  # in a small image a crop can be another one's mirror image
        assert 10 <= flipped <= 30  # a coin thrown 40 times, six standard deviations


def test_shifts_and_flips_are_uniform_and_independent():
    count, image = 16200, torch.arange(12 * 12.0).view(1, 12, 12)
    possible = torch.cat([crops(image), crops(image).flip(-1)])
    number = {crop.numpy().tobytes(): place for place, crop in enumerate(possible)}
    assert len(number) == 162
    results = augmented(image.expand(count, 1, 12, 12), "crop_flip", named_generator(0, "batches"))
    counts = np.bincount([number[result.numpy().tobytes()] for result in results], minlength=162)
    chi_square = ((counts - count / 162) ** 2 / (count / 162)).sum()
    assert 161 - 5 * 18 < chi_square < 161 + 5 * 18  # 161 degrees of freedom, standard deviation 18


def test_the_generator_sets_the_result():
    images = torch.randn(16, 3, 12, 12, generator=named_generator(0, "images"))
    one, same, other = (augmented(images, "crop_flip", named_generator(seed, "batches")) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_none_leaves_images_and_generator_alone():
    generator = named_generator(0, "batches")
    images = torch.randn(2, 1, 6, 6, generator=generator)
    state = generator.get_state()
    assert augmented(images, "none", generator) is images
    assert torch.equal(generator.get_state(), state)
    with pytest.raises(ValueError, match="crop_flip"):
        augmented(images, "flip", generator)


def test_a_split_draws_the_same_images_and_then_augments_them(digits):
    plain, labels = digits.train.sample(50, named_generator(0, "batches"))
    index = torch.randint(len(digits.train), (50,), generator=named_generator(0, "batches"))
    assert torch.equal(plain, digits.train.images[index])  # as without the setting
    cropped, same_labels = digits.train.sample(50, named_generator(0, "batches"), "crop")
    assert torch.equal(labels, same_labels)
    for image, result in zip(plain, cropped, strict=True):
        assert (crops(image) == result).flatten(1).all(1).any()
