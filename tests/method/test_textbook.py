"""The fast path against the textbook implementation that benchmarks/speed.py compares it with, in float32."""

import pytest
import torch
from textbook import Textbook

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.method import Distiller, hypergradient
from raydistill.method.rng import named_generator
from raydistill.networks import build_network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "steps", "epochs"), [("lenet", 1, 3), ("lenet", 3, 2), ("alexcifarnet", 1, 2), ("convnet", 1, 2)]
)
def test_hypergradients_are_equal(network, steps, epochs):
    shape = (1, 28, 28) if network == "lenet" else (3, 32, 32)
    start = {"images.init": {"name": "noise", "std": 1.0}}
    config = validated(
        DistillConfig,
        {"network": network, "steps": steps, "epochs": epochs, "inner_lr": 0.02, "batch_size": 64, **start},
    )
    # of another draw, one ReLU lay so near to its kink that it switched with the number of threads
    generator = named_generator(0, "textbook 1")
    images = torch.randint(0, 256, (128, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (128,), generator=generator)
    mean = std = torch.full((shape[0],), 0.5)
    textbook = Textbook(config, (images, labels), mean, std, "cpu", workers=0)
    real = ((images[:64] / 255 - 0.5) / 0.5, labels[:64])
    from raydistill.data import Split

    ours = Distiller(config, build_network(config, shape, 10), Split(*real), 10)
    for theirs, mine in zip(textbook.images, ours.learned.images[0], strict=True):
        theirs.data.copy_(mine)
    textbook.raw_rates.data.copy_(ours.learned.raw_rates[0])
    weights = torch.cat([w.detach().flatten() for w in textbook.fixed.values()])

    loss, gradient = hypergradient(ours.network, ours.learned, weights[None, None], *real)
    expected_loss, expected = textbook.hypergradient(textbook.fixed, *real)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    pairs = [(gradient.images[0], torch.stack(expected[:-1])), (gradient.raw_rates[0], expected[-1])]
    for mine, theirs in pairs:
        assert (mine - theirs).norm() / theirs.norm() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, None])  # with a DataLoader, and with data that lie on the device
def test_the_textbook_learns_too(workers):
    """Or beating it would mean little."""
    generator = named_generator(0, "textbook")
    images = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    labels = torch.arange(200) % 10
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * label : 2 * label + 4] = 200
    images += torch.randint(0, 20, images.shape, generator=generator, dtype=torch.uint8)
    config = validated(DistillConfig, {"network": "lenet", "batch_size": 50, "inner_lr": 0.05, "outer_lr": 0.05})
    textbook = Textbook(config, (images, labels), torch.tensor([0.2]), torch.tensor([0.4]), "cpu", workers=workers)
    real = (images.float() / 255 - 0.2) / 0.4

    def loss():
        return textbook.hypergradient(textbook.fixed, real, labels)[0].item()

    before = loss()
    for _ in range(60):
        textbook.step()
    assert loss() < 0.8 * before
    drawn, classes = next(textbook.batches)
    assert drawn.shape == (50, 1, 28, 28)
    nearest = (drawn[:, None] - real).flatten(2).norm(dim=2).min(1)
    assert nearest.values.max() < 1e-3  # normalised, and with their own classes
    assert torch.equal(labels[nearest.indices], classes)
