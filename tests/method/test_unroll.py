"""The hypergradient against full autograd and finite differences, in float64."""

import pytest
import torch
import torch.nn.functional as F

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.method import DistilledSet, hypergradient, train
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.networks.initialisers import STATISTICS, Initialiser

STEPS, EPOCHS, CLASSES = 3, 2, 4


PROBLEMS = [
    *(("lenet", shape) for shape in ((1, 28, 28), (3, 32, 32), (1, 8, 8))),
    ("convnet", (3, 8, 8)),
    ("alexcifarnet", (3, 8, 8)),
    *((f"torchvision:tiny_{kind}", (3, 8, 8)) for kind in ("norm", "vit")),
]


@pytest.fixture(params=PROBLEMS, ids=lambda p: f"{p[0]}-{p[1][1]}")
def problem(request, tiny_classifiers):
    """A network, a distilled set, initial weights [P], and an objective, all in float64."""
    name, shape = request.param
    published = {"weights": "fixed_pretrained", "bank": "published"} if name.endswith("_norm") else {}
    size = {"width": 8, "depth": 2} if name == "convnet" else {}
    config = validated(DistillConfig, {"network": {"name": name, **size}, **published})
    network = build_network(config, shape, CLASSES)
    generator = named_generator(3, "test")
    images = torch.randn(STEPS, 5, *shape, generator=generator).double()
    labels = torch.randn(STEPS, 5, CLASSES, generator=generator).double().softmax(-1)
    rates = torch.rand(EPOCHS, STEPS, generator=generator).double() * 0.1 + 0.01
    weights = initial_weights(network, generator).double()
    real = torch.randn(16, *shape, generator=generator).double()
    classes = torch.randint(CLASSES, (16,), generator=generator)
    return (
        network,
        DistilledSet.from_rates(images, labels, rates),
        weights,
        (real, classes),
    )


def initial_weights(network, generator):
    """Of three networks; statistics of batch normalisation are as of some data."""
    weights = Initialiser(network.module, "xavier").draw(3, generator)
    for each in weights:
        for name, part in network.unflatten(each).items():
            if name.endswith(STATISTICS):
                part.add_(torch.rand(part.shape, generator=generator))
    return weights


def hypergradient_of_one(network, distilled, weights, real):
    """Of one set and one network [W]."""
    loss, gradient = hypergradient(network, DistilledSet.stack([distilled]), weights[None, None], *real)
    return loss[0], gradient.unstack()[0]


def autograd_oracle(network, distilled, weights, real):
    """The same gradient from one graph through the whole training, in the words of a textbook."""
    images, labels, raw = (
        t.clone().requires_grad_() for t in (distilled.images, distilled.labels, distilled.raw_rates)
    )
    w = weights.clone().requires_grad_()
    for e in range(EPOCHS):
        for s in range(STEPS):
            loss = -(labels[s] * torch.log_softmax(network(w, images[s]), -1)).sum(-1).mean()
            (g,) = torch.autograd.grad(loss, w, create_graph=True)
            w = w - torch.log1p(torch.exp(raw[e, s])) * g
    loss = F.cross_entropy(network(w, real[0]), real[1])
    return loss, torch.autograd.grad(loss, (images, labels, raw))


@pytest.mark.slow
def test_equals_full_autograd(problem, caplog):
    network, distilled, weights, real = problem
    loss, gradient = hypergradient_of_one(network, distilled, weights[0], real)
    assert not any("cannot be recorded" in message for message in caplog.messages)
    expected_loss, expected = autograd_oracle(network, distilled, weights[0], real)
    assert abs(loss - expected_loss) < 1e-12
    for ours, theirs in zip((gradient.images, gradient.labels, gradient.raw_rates), expected, strict=True):
        assert theirs.abs().max() > 1e-6  # not a comparison of zeros
        assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("part", ["images", "labels", "raw_rates"])
def test_equals_finite_differences(problem, part):
    network, distilled, weights, real = problem
    _, gradient = hypergradient_of_one(network, distilled, weights[0], real)
    direction = torch.randn(getattr(distilled, part).shape, generator=named_generator(1, "direction")).double()
    step = 1e-7  # small against the kinks of ReLU and max pooling, large against rounding

    def objective_at(amount):
        parts = {name: getattr(distilled, name) for name in ("images", "labels", "raw_rates")}
        moved = DistilledSet(**parts | {part: parts[part] + amount * direction})
        return F.cross_entropy(network(train(network, moved, weights[:1])[0], real[0]), real[1])

    slope = (objective_at(step) - objective_at(-step)) / (2 * step)
    exact = (getattr(gradient, part) * direction).sum()
    assert abs(slope - exact) < 1e-6 * max(1, abs(exact))


@pytest.mark.slow
def test_many_at_once_are_the_mean_of_each(problem):
    """Two sets, three networks each."""
    network, distilled, weights, real = problem
    other = DistilledSet(distilled.images.flip(0), distilled.labels.flip(1), distilled.raw_rates + 0.5)
    starts = torch.stack([weights, weights.flip(0) * 1.1])
    losses, gradients = hypergradient(network, DistilledSet.stack([distilled, other]), starts, *real)
    for one, start, loss, gradient in zip([distilled, other], starts, losses, gradients.unstack(), strict=True):
        each = [hypergradient_of_one(network, one, w, real) for w in start]
        assert torch.allclose(loss, torch.stack([e[0] for e in each]).mean(), rtol=1e-12)
        for part in ("images", "labels", "raw_rates"):
            expected = torch.stack([getattr(e[1], part) for e in each]).mean(0)
            assert torch.allclose(getattr(gradient, part), expected, rtol=1e-9, atol=1e-13)


def test_is_pure(problem):
    network, distilled, weights, real = problem
    before = [t.clone() for t in (distilled.images, distilled.labels, distilled.raw_rates, weights)]
    first = hypergradient_of_one(network, distilled, weights[0], real)
    second = hypergradient_of_one(network, distilled, weights[0], real)
    assert torch.equal(first[1].images, second[1].images)
    for old, new in zip(before, (distilled.images, distilled.labels, distilled.raw_rates, weights), strict=True):
        assert torch.equal(old, new)


def test_training_equals_torch_sgd(problem):
    network, distilled, weights, _ = problem
    [trained] = train(network, distilled, weights[:1])
    w = weights[0].clone().requires_grad_()
    for images, labels, rate in distilled.batches():
        optimizer = torch.optim.SGD([w], lr=rate)
        optimizer.zero_grad()
        F.cross_entropy(network(w, images), labels).backward()
        optimizer.step()
    assert torch.allclose(trained, w, rtol=1e-10, atol=1e-12)


def test_statistics_of_batch_normalisation_stay(tiny_classifiers):
    config = validated(
        DistillConfig, {"network": "torchvision:tiny_norm", "weights": "fixed_pretrained", "bank": "published"}
    )
    network = build_network(config, (3, 8, 8), 4)
    generator = named_generator(3, "test")
    weights = initial_weights(network, generator)
    images = torch.randn(2, 4, 3, 8, 8, generator=generator)
    distilled = DistilledSet.from_rates(images, torch.eye(4).expand(2, 4, 4), torch.full((2, 2), 0.1))
    before, after = network.unflatten(weights[0]), network.unflatten(train(network, distilled, weights)[0])
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    assert stayed == {name for name in before if name.endswith(STATISTICS)}
    assert len(stayed) == 6


def test_bfloat16_is_close_and_learns_in_float32():
    shape = (1, 28, 28)
    generator = named_generator(0, "precision")
    weights = build_network(DistillConfig(), shape, 10).initial_weights(1, generator)
    images = torch.randn(1, 1, 10, *shape, generator=generator)
    distilled = DistilledSet(images, torch.eye(10)[None, None], torch.full((1, 2, 1), -3.0))
    real = torch.randn(64, *shape, generator=generator), torch.randint(10, (64,), generator=generator)
    exact, rounded = (
        hypergradient(build_network(DistillConfig(precision=p), shape, 10), distilled, weights[None], *real)
        for p in ("float32", "bfloat16")
    )
    assert rounded[1].images.dtype == torch.float32
    assert rounded[0].item() == pytest.approx(exact[0].item(), rel=0.02)
    assert not torch.equal(rounded[1].images, exact[1].images)
    direction = F.cosine_similarity(rounded[1].images.flatten(), exact[1].images.flatten(), dim=0)
    assert direction > 0.8  # 8 bits of mantissa, and a few units of ReLU and pool that switch
