"""The hypergradient through augmented images of the set, and who is augmented by which draws."""

from dataclasses import replace

import pytest
import torch

from raydistill.config.augment_settings import Augment
from raydistill.data import Split
from raydistill.data.augment import augmented, draw
from raydistill.method import DistilledSet, Distiller
from raydistill.method.augmented_set import augmented_set, draws_for_set
from raydistill.method.rng import named_generator
from raydistill.method.unroll import hypergradient
from raydistill.networks import build_network

ON = {"shift": 2, "flip": True, "rotate": 20, "scale": 1.2, "colour": 0.5, "cutout": 0.2}
MOVES = {"shift": 2, "flip": True}


def made(config, data):
    return Distiller(config, build_network(config, data.image_shape, data.num_classes), data.train, data.num_classes)


def in_double(learned):
    return DistilledSet(*(t.double() for t in (learned.images, learned.labels, learned.raw_rates)))


@pytest.mark.parametrize("on", ["set", "both", "paired"])
@pytest.mark.parametrize("transforms", [MOVES, ON], ids=str)
def test_the_hypergradient_is_that_of_full_autograd(small, digits, on, transforms):
    """In float64, of a population of two sets with two minibatches and two epochs."""
    config = small.changed({"population": 2, "network": "convnet", "network.width": 4, "network.depth": 1})
    network = build_network(config, digits.image_shape, digits.num_classes)
    augment = Augment(**transforms, on=on)
    learned = in_double(made(config, digits).learned)
    weights = network.initial_weights(2, named_generator(0, "w")).double()[:, None]
    real, labels = digits.val.images[:20].double(), digits.val.labels[:20]
    draws = draws_for_set(augment, learned, named_generator(0, "x"))
    assert len(draws) == (1 if on == "paired" else 20)

    shown, pull = augmented_set(learned, augment, draws)
    loss, gradient = hypergradient(network, shown, weights, real, labels)
    gradients = pull(gradient.images)
    assert not torch.equal(shown.images, learned.images)

    for member, mine in enumerate(learned.unstack()):
        images = mine.images.clone().requires_grad_()
        changed = augmented(images.flatten(0, 1), augment, draws).view_as(images)
        w = weights[member, 0].clone().requires_grad_()
        for rates in mine.learning_rates:
            for x, y, rate in zip(changed, mine.labels, rates, strict=True):
                inner = torch.nn.functional.cross_entropy(network(w, x), y)
                w = w - rate * torch.autograd.grad(inner, w, create_graph=True)[0]
        expected = torch.nn.functional.cross_entropy(network(w, real), labels)
        (of_images,) = torch.autograd.grad(expected, images)
        assert torch.allclose(loss[member], expected, rtol=1e-12)
        assert torch.allclose(gradients[member], of_images, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("on", ["real", "set", "both", "paired"])
def test_an_iteration_sees_what_the_setting_says(small, digits, on, monkeypatch):
    """The real batch, and the images that networks train on, are those that the draws of the batches' stream give."""
    config = small.changed({"data.augment": {**MOVES, "on": on}, "population": 2})
    distiller = made(config, digits)
    before = distiller.learned.images.clone()
    seen = []

    def spied(network, shown, weights, images, labels):
        seen.append((shown.images.clone(), images))
        return hypergradient(network, shown, weights, images, labels)

    monkeypatch.setattr("raydistill.method.solver.hypergradient", spied)
    distiller.step()
    [(of_set, real)] = seen
    stream, augment = named_generator(config.seed, "batches"), config.data.augment
    plain, _ = digits.train.sample(config.batch_size, stream)
    for_set = draw({"real": 0, "paired": 1}.get(on, 20), stream)
    for_real = for_set if on == "paired" else draw(len(plain), stream)
    assert torch.equal(real, plain if on == "set" else augmented(plain, augment, for_real))
    for mine, given in zip(of_set, before, strict=True):
        expected = given if on == "real" else augmented(given.flatten(0, 1), augment, for_set).view_as(given)
        assert torch.equal(mine, expected)
    assert torch.equal(real, plain) == (on == "set")
    assert torch.equal(of_set, before) == (on == "real")


def test_one_draw_for_all_turns_the_set_as_it_turns_the_real_images(small, digits, monkeypatch):
    """Where real images and the set are one image, they stay so."""
    one = digits.train.images[:1]
    data = replace(digits, train=Split(one.expand(10, -1, -1, -1), torch.arange(10)))
    config = small.changed({"data.augment": {**ON, "on": "paired"}, "images.init": "real", "weights": "random"})
    distiller = made(config, data)
    seen = []

    def spied(network, shown, weights, images, labels):
        seen.append((shown.images, images))
        return hypergradient(network, shown, weights, images, labels)

    monkeypatch.setattr("raydistill.method.solver.hypergradient", spied)
    distiller.step()
    [(of_set, real)] = seen
    assert torch.allclose(of_set.flatten(0, 2), real[:1].expand(20, -1, -1, -1), atol=1e-6)
    assert not torch.allclose(real[0], one[0], atol=0.1)
