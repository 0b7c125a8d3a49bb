"""Augmentation: shifts against numpy's padding, geometry against torch and torchvision, gradients in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine

from raydistill.config.augment_settings import Transforms
from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import validated
from raydistill.data.augment import (
    COLOUR,
    CUTOUT,
    FLIP,
    NUMBERS,
    ROTATE,
    SCALE,
    SHIFT,
    _interpolated,
    augmented,
    check_transforms,
    draw,
)
from raydistill.evaluation.problem import check_problem
from raydistill.method.rng import named_generator
from raydistill.runs.pretraining import BankTrainer
from raydistill.system.errors import UserError

MOST = 4
MOVES = {"shift": Transforms(shift=MOST), "shift and flip": Transforms(shift=MOST, flip=True)}
ALL = Transforms(shift=2, flip=True, rotate=20, scale=1.3, colour=0.7, cutout=0.3)
EACH = [Transforms(**{name: value}) for name, value in ALL.model_dump().items() if value != getattr(Transforms(), name)]


def normal(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=named_generator(0, "images"), dtype=dtype)


def neutral(count=1):
    """Draws with which everything but the cutout stays as it is."""
    return torch.full((count, NUMBERS), 0.5)


def crops(image):
    """All that can become of an image [C, H, W] by numpy's reflection: [81, C, H, W], row shifts first."""
    height, width = image.shape[1:]
    padded = np.pad(image.numpy(), [(0, 0), (MOST, MOST), (MOST, MOST)], mode="reflect")
    places = [(y, x) for y in range(2 * MOST + 1) for x in range(2 * MOST + 1)]
    return torch.from_numpy(np.stack([padded[:, y : y + height, x : x + width] for y, x in places]))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 9, 6), (1, 4, 3), (1, 1, 5)])
@pytest.mark.parametrize("kind", MOVES)
def test_each_image_is_one_of_its_own_crops_or_its_mirror_image(kind, shape):
    images = normal(40, *shape)
    before = images.clone()
    results = augmented(images, MOVES[kind], draw(40, named_generator(1, "batches")))
    assert torch.equal(images, before)
    assert results.shape == images.shape
    flipped = 0
    for image, result in zip(images, results, strict=True):
        expected = crops(image)
        plain = (expected == result).flatten(1).all(1).any()
        mirrored = (expected.flip(-1) == result).flatten(1).all(1).any()
        assert plain or (mirrored and kind == "shift and flip")
        flipped += int(not plain)
    if kind == "shift and flip" and shape[2] == 32:  # in a small image a crop can be another one's mirror image
        assert 10 <= flipped <= 30  # a coin thrown 40 times, six standard deviations


def test_shifts_and_flips_are_uniform_and_independent():
    count, image = 16200, torch.arange(12 * 12.0).view(1, 12, 12)
    possible = torch.cat([crops(image), crops(image).flip(-1)])
    number = {crop.numpy().tobytes(): place for place, crop in enumerate(possible)}
    assert len(number) == 162
    draws = draw(count, named_generator(0, "batches"))
    results = augmented(image.expand(count, 1, 12, 12), MOVES["shift and flip"], draws)
    counts = np.bincount([number[result.numpy().tobytes()] for result in results], minlength=162)
    chi_square = ((counts - count / 162) ** 2 / (count / 162)).sum()
    assert 161 - 5 * 18 < chi_square < 161 + 5 * 18  # 161 degrees of freedom, standard deviation 18


@pytest.mark.parametrize("transforms", [ALL, *EACH], ids=str)
def test_the_draws_set_the_result_and_the_seed_sets_the_draws(transforms):
    images = normal(16, 3, 12, 12)
    one, same, other = (augmented(images, transforms, draw(16, named_generator(seed, "x"))) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("transforms", [ALL, *EACH], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_draw_for_all_is_the_same_draw_for_each(transforms, channels):
    images, draws = normal(5, channels, 9, 8), draw(1, named_generator(3, "x"))
    expected = augmented(images, transforms, draws.expand(5, -1))
    assert torch.equal(augmented(images, transforms, draws), expected)


@pytest.mark.parametrize("transforms", [ALL, *EACH], ids=str)
def test_gradients_for_the_images_are_exact(transforms):
    images = normal(3, 3, 5, 6, dtype=torch.float64).requires_grad_()
    draws = draw(3, named_generator(0, "x"))
    assert torch.autograd.gradcheck(lambda x: augmented(x, transforms, draws), images)


def test_what_is_off_changes_nothing():
    images = normal(6, 3, 12, 12)
    assert not Transforms().change_something
    assert augmented(images, Transforms(), draw(6, named_generator(0, "x"))) is images
    for transforms in EACH:
        assert transforms.change_something
        result = augmented(images, transforms, neutral(6))
        if transforms.shift or transforms.flip:
            assert torch.equal(result, images)
        elif not transforms.cutout:
            assert torch.allclose(result, images, atol=1e-5)


@pytest.mark.parametrize(("angle", "factor", "right", "down"), [(20, 1, 0, 0), (0, 1.25, 0, 0), (-30, 0.8, 2, -3)])
@pytest.mark.parametrize("size", [(24, 24), (23, 30)])
def test_geometry_is_that_of_torchvision(angle, factor, right, down, size):
    """On images with a wide border of zeros, as torchvision has no mirrored ones."""
    images = F.pad(normal(4, 2, *size), [12] * 4)
    transforms = Transforms(shift=4, rotate=40, scale=1.5)
    draws = neutral()
    draws[:, ROTATE] = 0.5 + angle / 80
    draws[:, SCALE] = 0.5 + np.log(factor) / np.log(1.5) / 2
    draws[:, SHIFT] = torch.tensor([(down + 4.5) / 9, (right + 4.5) / 9])
    expected = affine(images, angle, [right, down], factor, [0.0, 0.0], InterpolationMode.BILINEAR)
    inside = (..., slice(6, -6), slice(6, -6))
    assert torch.allclose(augmented(images, transforms, draws)[inside], expected[inside], atol=1e-4)


def test_sides_are_scaled_by_factors_of_their_own_around_the_middle():
    draws = neutral()
    draws[:, SCALE] = torch.tensor([0.0, 1.0])  # rows by 1 / 2, columns by 2
    ramp = torch.stack(torch.meshgrid(torch.arange(9.0) - 4, torch.arange(9.0) - 4, indexing="ij"))[None]
    rows, columns = augmented(ramp, Transforms(scale=2), draws)[0]
    assert torch.allclose(columns, ramp[0, 1] / 2, atol=1e-5)
    inner = slice(2, 7)  # beyond these the border is mirrored
    assert torch.allclose(rows[inner], ramp[0, 0, inner] * 2, atol=1e-5)
    assert torch.allclose(rows[:2], rows[3:5].flip(0), atol=1e-5)


def test_flips_go_together_with_rotations():
    images, draws = normal(1, 1, 10, 11), draw(1, named_generator(2, "x"))
    draws[:, FLIP] = 0.9
    mirrored = draws.clone()
    mirrored[:, FLIP] = 0.1
    transforms = Transforms(rotate=30, flip=True, shift=2)
    one, other = (augmented(images, transforms, each) for each in (draws, mirrored))
    assert torch.allclose(one.flip(-1), other, atol=1e-5)


def test_the_interpolation_for_gradients_on_a_gpu_is_that_of_grid_sample():
    images = normal(3, 2, 7, 9, dtype=torch.float64)
    rows, columns = (torch.rand(2, 3, 7, 9, generator=named_generator(0, "x"), dtype=torch.float64) * 60 - 30).unbind()
    grid = torch.stack([columns / 4, rows / 3], -1) - 1
    expected = F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    assert torch.allclose(_interpolated(images, rows, columns), expected, atol=1e-12)


def test_colours_change_within_their_ranges():
    images = normal(1, 3, 6, 6, dtype=torch.float64)
    mean, grey = images.mean(), images.mean(1, keepdim=True)

    def coloured(brightness, saturation, contrast, strength=1.0):
        draws = neutral()
        draws[:, COLOUR] = torch.tensor([brightness, saturation, contrast])
        return augmented(images, Transforms(colour=strength), draws)

    for end in (0.0, 1.0):
        assert torch.allclose(coloured(end, 0.5, 0.5), images + end - 0.5)
        assert torch.allclose(coloured(0.5, end, 0.5), grey + (images - grey) * 2 * end)
        assert torch.allclose(coloured(0.5, 0.5, end), mean + (images - mean) * (0.5 + end))
        assert torch.allclose(coloured(0.5, 0.5, end, 0.2), mean + (images - mean) * (0.9 + 0.2 * end))


def test_a_cutout_is_a_square_anywhere():
    images = 1 + normal(400, 2, 8, 10).abs()
    results = augmented(images, Transforms(cutout=0.5), draw(400, named_generator(0, "x")))
    gone = results == 0
    assert torch.equal(gone[:, 0], gone[:, 1])
    assert torch.equal(results[~gone], images[~gone])
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None])
    assert rows.sum(1).max() == columns.sum(1).max() == 4  # half of the shorter side; at the border less is left
    assert rows.sum(1).min() == columns.sum(1).min() == 2
    assert (gone.float().mean(0) > 0.02).all()
    draws = neutral()
    draws[:, CUTOUT] = 0.0
    tiny = augmented(images[:1], Transforms(cutout=0.01), draws)
    assert (tiny == 0).sum() == 2  # at least a pixel of each channel


@pytest.mark.parametrize(
    ("given", "shape", "message"),
    [
        (
            {"shift": 4},
            (1, 8, 8),
            r"^recipe\.augment\.shift=4: is more than a quarter of a side.* 8 x 8 .*; at most 2$",
        ),
        ({"shift": 3}, (3, 32, 8), "at most 2$"),
        ({"rotate": 10.0}, (1, 4, 4), r"^recipe\.augment\.rotate=10: .*images of 4 x 4 pixels.* at least 8 x 8$"),
        ({"scale": 1.2}, (1, 4, 9), r"^recipe\.augment\.scale=1\.2: "),
    ],
)
def test_images_may_be_too_small(given, shape, message):
    with pytest.raises(UserError, match=message):
        check_transforms(Transforms(**given), shape, "recipe.augment")
    check_transforms(Transforms(**given), (3, 32, 32), "recipe.augment")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.augment.scale": 0.9}, r"^data\.augment\.scale: input should be greater than or equal to 1, not 0\.9$"),
        (
            {"data.augment.cutout": 0.6},
            r"^data\.augment\.cutout: input should be less than or equal to 0\.5, not 0\.6$",
        ),
        ({"data.augment.rotate": 90}, r"^data\.augment\.rotate: input should be less than or equal to 45, not 90$"),
        (
            {"data.augment.on": "all"},
            r"^data\.augment\.on: input should be 'real', 'set', 'both' or 'paired', not 'all'",
        ),
        ({"data.augment": "crop"}, r"^data\.augment: should be a section of settings, not 'crop'$"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(UserError, match=message):
        validated(DistillConfig, values)


def test_where_there_is_no_set_only_real_images_are_augmented(digits):
    with pytest.raises(UserError, match=r"^data\.augment\.on=paired: a bank has no set"):
        validated(PretrainConfig, {"data.augment.on": "paired"})
    config = PretrainConfig(dataset="digits").changed({"data.augment.shift": 4})
    with pytest.raises(UserError, match=r"^data\.augment\.shift=4: "):
        BankTrainer(config, digits)


def test_a_run_and_a_sweep_check_the_size_of_images(digits, small):
    with pytest.raises(UserError, match=r"^data\.augment\.shift=3: .*8 x 8"):
        check_problem(small.changed({"data.augment.shift": 3}), digits, None)
