"""Labels: what they start from, their gradient, and what is learned and what stays."""

import pytest
import torch

from raydistill.method import Distiller
from raydistill.method.initial_set import initial_set
from raydistill.method.labels import LabelForm, balanced_classes, initial_raw_labels, orthonormal_rows
from raydistill.networks import build_network
from raydistill.system.errors import UserError

CLASSES = torch.tensor([[0, 1, 2, 2], [2, 1, 0, 0]])


def start(kind, form="free", noise=None):
    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)) if noise is None else noise
    return LabelForm(form).labels(initial_raw_labels(kind, LabelForm(form), CLASSES, 3, noise))


@pytest.mark.parametrize("form", ["softmax", "free"])
def test_starts(form):
    onehot = torch.eye(3)[CLASSES]
    assert torch.allclose(start("onehot", form), onehot, atol=2e-3)
    assert torch.allclose(start("smoothed", form), 0.9 * onehot + 0.1 / 3, atol=1e-6)
    assert torch.allclose(start("uniform", form), torch.full((2, 4, 3), 1 / 3))
    assert not torch.allclose(start("random", form)[0], start("random", form)[1])
    if form == "softmax":
        for kind in ("onehot", "smoothed", "uniform", "random", "orthogonal"):
            assert torch.allclose(start(kind, form).sum(-1), torch.ones(2, 4))


def test_fixed_onehot_labels_are_exact():
    assert torch.equal(start("onehot", "fixed"), torch.eye(3)[CLASSES])


def test_orthogonal_rows_are_orthonormal_in_blocks_of_k():
    rows = orthonormal_rows(torch.randn(2, 7, 5, dtype=torch.float64))
    assert torch.allclose(rows[:, :5] @ rows[:, :5].mT, torch.eye(5, dtype=torch.float64).expand(2, 5, 5), atol=1e-12)
    assert torch.allclose(rows[:, 5:] @ rows[:, 5:].mT, torch.eye(2, dtype=torch.float64).expand(2, 2, 2), atol=1e-12)


@pytest.mark.parametrize("form", ["softmax", "free"])
def test_raw_gradient_is_that_of_autograd(form):
    form = LabelForm(form)
    raw = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 4, 3, dtype=torch.float64)
    labels = form.labels(raw)
    (expected,) = torch.autograd.grad(labels, raw, cotangent)
    assert torch.allclose(form.raw_gradient(labels.detach(), cotangent), expected, atol=1e-12)


@pytest.mark.parametrize(("count", "classes"), [(10, 10), (20, 10), (25, 10), (5, 10), (3, 10), (1, 10)])
def test_classes_are_balanced(count, classes):
    labels = balanced_classes(count, classes, torch.device("cpu"))
    counts = torch.bincount(labels, minlength=classes)
    assert len(labels) == count
    assert counts.max() - counts.min() <= 1
    assert labels.tolist() == sorted(labels.tolist())


def make(config, data):
    network = build_network(config, data.image_shape, data.num_classes)
    return Distiller(config, network, data.train, data.num_classes)


@pytest.mark.parametrize("update", [{"labels": "softmax"}, {"labels": "free"}, {"labels": "softmax", "labels.lr": 0.3}])
def test_learned_labels_move_and_stay_labels(small, digits, update):
    distiller = make(small.changed(update), digits)
    before = distiller.raw_labels.clone()
    distiller.step()
    change = (distiller.raw_labels - before).abs()
    rate = update.get("labels.lr", small.outer_lr)
    assert change.max() == pytest.approx(rate, rel=0.05)  # Adam's first step has the length of its rate
    if update["labels"] == "softmax":
        assert torch.allclose(distiller.learned.labels.sum(-1), torch.ones(1, 2, 10))


def test_frozen_images_stay_and_labels_are_learned(small, digits):
    config = small.changed({"images.learned": False, "labels": "softmax", "images.init": "real"})
    distiller = make(config, digits)
    before = distiller.learned.detached()
    for _ in range(3):
        distiller.step()
    assert torch.equal(distiller.learned.images, before.images)
    assert torch.equal(distiller.averaged.images, before.images)
    assert not torch.equal(distiller.learned.labels, before.labels)
    assert not torch.equal(distiller.learned.raw_rates, before.raw_rates)


def test_images_can_start_from_real_ones_of_their_class(small, digits):
    learned, _ = initial_set(small.changed({"images.init": "real"}), digits.train, 10)
    for image, label in zip(learned.images.flatten(0, 1), learned.labels.flatten(0, 1), strict=True):
        place = (digits.train.images[:] == image).flatten(1).all(1).nonzero()[0, 0]
        assert digits.train.labels[place] == label.argmax()


@pytest.mark.parametrize(
    ("image_init", "weights", "same_as"),
    [
        ("auto", "random", "real"),
        ("auto", "random_pretrained", "real"),
        ("auto", "fixed", "noise"),
        ("noise", "random", "noise"),
        ("real", "fixed", "real"),
    ],
)
def test_auto_starts_from_real_images_with_random_weights(small, digits, image_init, weights, same_as):
    update = {"weights": weights, "bank": "b" if weights == "random_pretrained" else None}
    images = [
        initial_set(small.changed(update | {"images.init": name}), digits.train, 10)[0].images
        for name in (image_init, same_as, "noise" if same_as == "real" else "real")
    ]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_fewer_images_than_classes(small, digits):
    learned, raw = initial_set(small.changed({"images.per_step": 5, "labels": "free"}), digits.train, 10)
    assert learned.images.shape == (2, 5, 1, 8, 8)
    assert raw.shape == (2, 5, 10)
    with pytest.raises(UserError, match=r"images\.per_step=5: is fewer than the 10 classes; use labels=softmax"):
        initial_set(small.changed({"images.per_step": 5}), digits.train, 10)
