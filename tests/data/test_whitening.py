"""ZCA: against numpy and scikit-learn, there and back, and what cannot be whitened."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import Dataset, load_dataset
from raydistill.data.whitening import MOST_NUMBERS, Whitening
from raydistill.evaluation.problem import check_problem
from raydistill.system.errors import UserError

STRENGTH = 0.1


@pytest.fixture(scope="module")
def white() -> Dataset:
    return load_dataset(DistillConfig.model_validate({"dataset": "digits", "data": {"zca": STRENGTH}}))


def flat(images):
    return images.flatten(1).double().numpy()


def test_the_matrix_is_the_inverse_root_of_the_covariance(white, digits):
    images = flat(digits.train.images[:])
    covariance = np.cov(images, rowvar=False, bias=True)
    loaded = covariance + STRENGTH * np.trace(covariance) / 64 * np.eye(64)
    matrix = white.whitening.matrix.double().numpy()
    assert np.allclose(matrix, matrix.T, atol=1e-6)
    assert np.allclose(matrix @ loaded @ matrix, np.eye(64), atol=1e-5)
    assert np.linalg.eigvalsh(matrix).min() > 0  # of all roots the one that leaves images recognisable
    assert np.allclose(white.whitening.mean.flatten(), images.mean(0), atol=1e-5)


def test_whitened_images_have_the_covariance_of_scikit_learns(white, digits):
    """With hardly any strength, so that there is nothing but the whitening of principal components, turned back."""
    from sklearn.decomposition import PCA

    images = flat(digits.train.images[:])
    used = images.std(0) > 0.3  # pixels that are always empty have nothing to whiten
    picked = torch.tensor(images[:, used], dtype=torch.float32)[:, None, None]
    whitening = Whitening.of(picked, 1e-7)
    pca = PCA(whiten=True).fit(picked.flatten(1).double().numpy())
    turned_back = pca.transform(picked.flatten(1).double().numpy()) @ pca.components_
    mine = flat(whitening.whitened(picked))
    assert np.allclose(mine, turned_back, atol=0.01)
    assert np.allclose(np.cov(mine, rowvar=False), np.eye(used.sum()), atol=0.01)


def test_all_splits_are_whitened_by_the_training_images(white, digits):
    for name in ("train", "val", "test"):
        mine, plain = getattr(white, name), getattr(digits, name)
        expected = (flat(plain.images[:]) - white.whitening.mean.flatten().numpy()) @ white.whitening.matrix.numpy()
        assert mine.images.dtype == torch.float32
        assert np.allclose(flat(mine.images), expected, atol=1e-4)
        assert torch.equal(mine.labels, plain.labels)
    assert white.fingerprint == digits.fingerprint


def test_pixels_come_back(white, digits):
    expected = digits.test.images[:50] * digits.std + digits.mean
    assert torch.allclose(white.to_pixels(white.test.images[:50]), expected, atol=1e-5)
    assert torch.allclose(
        white.to_pixels(white.test.images[:4].view(2, 2, 1, 8, 8)).view(4, 1, 8, 8), expected[:4], atol=1e-5
    )
    assert torch.allclose(digits.to_pixels(digits.test.images[:50]), expected)


def test_the_way_through_rays_store(white):
    back = Dataset.from_numpy(white.to_numpy())
    assert torch.equal(back.whitening.matrix, white.whitening.matrix)
    assert torch.equal(back.whitening.mean, white.whitening.mean)
    assert torch.equal(back.train.images, white.train.images)
    assert back.to(torch.device("cpu")).whitening is back.whitening


def test_a_given_whitening_is_used(white):
    config = DistillConfig.model_validate({"dataset": "digits", "data": {"zca": STRENGTH}})
    other = Whitening(white.whitening.mean, 2 * white.whitening.matrix)
    data = load_dataset(config, whitening=other)
    assert torch.allclose(data.val.images, 2 * white.val.images, atol=1e-5)
    assert not other.is_close(white.whitening)
    assert Whitening(white.whitening.mean + 1e-6, white.whitening.matrix).is_close(white.whitening)
    assert not other.is_close(None)


def test_what_cannot_be_whitened(tmp_path):
    images = torch.randn(70, 1, 8, 8)
    with pytest.raises(UserError, match=r"^data\.zca=0\.1: 63 training images do not tell how the 64 numbers"):
        Whitening.of(images[:63], 0.1)
    assert Whitening.of(images[:64], 0.1).matrix.isfinite().all()
    with pytest.raises(UserError, match=r"^data\.zca=0\.1: all training images are the same"):
        Whitening.of(images[:1].expand(70, -1, -1, -1), 0.1)
    side = int(MOST_NUMBERS**0.5) + 1
    with pytest.raises(UserError, match=rf"^data\.zca=0\.1: images of 1x{side}x{side} have .*at most {MOST_NUMBERS}"):
        Whitening.of(torch.zeros(1, 1, side, side), 0.1)


@pytest.mark.parametrize("strength", [0, -1, 11])
def test_a_strength_that_makes_no_sense(strength):
    with pytest.raises(UserError, match=r"^data\.zca: input should be (greater|less) than .*, not "):
        validated(DistillConfig, {"data.zca": strength})


def test_settings_and_given_data_agree(white, digits, small):
    with pytest.raises(UserError, match=r"^data\.zca=None: the given data are whitened"):
        check_problem(small, white, None)
    with pytest.raises(UserError, match=r"^data\.zca=0\.1: the given data are not whitened"):
        check_problem(small.changed({"data.zca": 0.1}), digits, None)
    published = {"network": "torchvision:resnet18", "weights": "random_pretrained", "bank": "published"}
    with pytest.raises(UserError, match=r"^data\.zca: the networks of bank=published know images as they are"):
        validated(DistillConfig, {"data.zca": 0.1, **published})
    check_problem(small.changed({"data.zca": 0.1}), replace(white, name="other"), None)
