"""Networks as functions of flat weights."""

import pytest
import torch
import torch.nn.functional as F

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.networks.alexcifarnet import AlexCifarNet, response_norm
from raydistill.networks.convnet import ConvNet
from raydistill.networks.lenet import LeNet
from raydistill.system.errors import UserError


@pytest.mark.parametrize(("shape", "weights"), [((1, 28, 28), 61706), ((3, 32, 32), 62006), ((1, 8, 8), 21386)])
def test_lenet_has_the_published_number_of_weights(shape, weights):
    """61,706 and 62,006 are LeNet's on MNIST and CIFAR-10; the digits' is 6*26 + 16*151 + 65*120 + 121*84 + 85*10."""
    network = build_network(validated(DistillConfig, {"network": "lenet"}), shape, 10)
    assert network.num_weights == weights
    assert network(torch.zeros(weights), torch.zeros(2, *shape)).shape == (2, 10)


def test_convnet_has_the_right_number_of_weights():
    """Three convolutions (3584 + 2 * 147584), three norms (256 each) and 2049 * 10 for the classifier."""
    network = build_network(validated(DistillConfig, {"network": "convnet"}), (3, 32, 32), 10)
    assert network.num_weights == 320010
    weights = network.initial_weights(1, named_generator(0, "w"))[0]
    assert network(weights, torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_alexcifarnet_is_the_published_one():
    """4,864 + 102,464 in its convolutions; 4,096 * 384 + 384, 384 * 192 + 192 and 1,930 in its linear layers."""
    network = build_network(validated(DistillConfig, {"network": "alexcifarnet"}), (3, 32, 32), 10)
    assert network.num_weights == 4864 + 102464 + 1573248 + 73920 + 1930
    weights = network.initial_weights(1, named_generator(0, "w"))[0]
    assert network(weights, torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_response_norm_is_that_of_torch():
    x = torch.randn(2, 7, 3, 3, generator=named_generator(0, "x")) * 100
    expected = torch.nn.functional.local_response_norm(x, 4, alpha=0.001 / 9, beta=0.75, k=1)
    assert torch.allclose(response_norm(x), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "module", [LeNet((1, 28, 28), 10), ConvNet((1, 28, 28), 10, 16, 3), AlexCifarNet((1, 28, 28), 10)]
)
def test_same_logits_as_the_module(module):
    from raydistill.networks import Network

    weights = torch.cat([p.detach().flatten() for p in module.parameters()])
    images = torch.randn(3, 1, 28, 28)
    expected = module(images)
    network = Network(module)
    assert torch.equal(network(weights, images), expected)
    assert [tuple(p.shape) for p in network.unflatten(weights).values()] == list(network.shapes.values())


def test_initial_weights_have_the_published_spread():
    network = build_network(validated(DistillConfig, {"network.init": "xavier"}), (1, 28, 28), 10)
    parts = network.unflatten(network.initial_weights(1, named_generator(0, "w"))[0])
    reference = torch.nn.init.xavier_normal_(torch.empty(120, 400))
    assert parts["fc1.weight"].std().item() == pytest.approx(reference.std().item(), rel=0.03)
    assert all(part.count_nonzero() == 0 for name, part in parts.items() if name.endswith("bias"))
    kaiming = build_network(validated(DistillConfig, {"network.init": "kaiming"}), (1, 28, 28), 10)
    reference = torch.nn.init.kaiming_normal_(torch.empty(16, 6, 5, 5))
    ours = kaiming.unflatten(kaiming.initial_weights(1, named_generator(0, "w"))[0])["conv2.weight"]
    assert ours.std().item() == pytest.approx(reference.std().item(), rel=0.1)


def test_gains_of_normalisation_start_at_one():
    network = build_network(
        validated(DistillConfig, {"network": {"name": "convnet", "width": 4, "depth": 1}}), (1, 8, 8), 10
    )
    parts = network.unflatten(network.initial_weights(1, named_generator(0, "w"))[0])
    assert torch.equal(parts["features.1.weight"], torch.ones(4))
    assert torch.equal(parts["features.1.bias"], torch.zeros(4))


def test_one_call_draws_different_networks():
    network = build_network(DistillConfig(), (1, 8, 8), 10)
    draws = network.initial_weights(2, named_generator(0, "w"))
    assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize(
    ("update", "shape", "words"),
    [
        ({"network": "lenet"}, (1, 2, 2), ["network=lenet", "2x2", "4 pixels"]),
        ({"network": "convnet", "network.depth": 4}, (1, 8, 8), ["network=convnet", "8x8", "depth 4", "16 pixels"]),
    ],
)
def test_what_does_not_fit_is_said(update, shape, words):
    with pytest.raises(UserError) as error:
        build_network(DistillConfig(**update), shape, 10)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["lenet", "convnet"])
def test_two_classes_are_binary_cross_entropy(name):
    """One output, whose binary cross-entropy with logits the loss is; gradients for weights and images too."""
    network = build_network(
        validated(DistillConfig, {"network": {"name": name} | ({"width": 8} if name == "convnet" else {})}),
        (1, 8, 8),
        2,
    )
    generator = named_generator(0, "two")
    weights = network.initial_weights(1, generator)[0].double()
    images = 3 * torch.randn(6, 1, 8, 8, generator=generator).double()
    module = {"lenet": LeNet((1, 8, 8), 1), "convnet": ConvNet((1, 8, 8), 1, 8, 3)}[name].double()
    module.load_state_dict(network.unflatten(weights))
    for labels in (torch.tensor([0, 1, 1, 0, 1, 0]), torch.rand(6, 1, generator=generator).double()):
        w, ours, theirs = (t.clone().requires_grad_() for t in (weights, images, images))
        soft = labels.double() if labels.dim() == 1 else labels[:, 0]
        logits = network(w, ours)
        assert logits.shape == (6, 2)
        loss = F.cross_entropy(logits, labels if labels.dim() == 1 else torch.cat([1 - labels, labels], 1))
        z = module(theirs)[:, 0]
        expected = F.binary_cross_entropy_with_logits(z, soft)
        assert torch.allclose(loss, expected, rtol=1e-12)
        assert torch.equal(logits.argmax(1), (z > 0).long())  # a logit's threshold is 0, not 1/2
        dw, dx = torch.autograd.grad(loss, (w, ours))
        wanted = (*module.parameters(), theirs)
        *each, expected_dx = torch.autograd.grad(expected, wanted, materialize_grads=True)
        assert torch.allclose(dw, torch.cat([part.flatten() for part in each]), rtol=1e-10, atol=1e-14)
        assert torch.allclose(dx, expected_dx, rtol=1e-10, atol=1e-14)


def test_two_classes_have_one_output_less():
    two, three = (build_network(DistillConfig(), (1, 8, 8), classes) for classes in (2, 3))
    assert three.num_weights - two.num_weights == 2 * 85
    assert three(torch.zeros(three.num_weights), torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_one_class_is_refused():
    with pytest.raises(UserError, match="dataset: has 1 class"):
        build_network(DistillConfig(), (1, 8, 8), 1)
