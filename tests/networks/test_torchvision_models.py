"""torchvision's classifiers: the same logits, pure, and refused where they cannot serve."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.method import DistilledSet, hypergradient
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.networks.initialisers import named_tensors
from raydistill.networks.pure import Pure
from raydistill.system.errors import UserError

PUBLISHED = {"bank": "published", "weights": "fixed_pretrained"}


def config_of(name, **update):
    return validated(DistillConfig, {"network": f"torchvision:{name}", **update})


def with_statistics(module):
    """The module in float64 and evaluation mode, with some statistics."""
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            noise = torch.rand(buffer.shape, generator=named_generator(0, name))
            buffer.copy_(noise + 0.5 if name.endswith("var") else 0.2 * noise - 0.1)
    return module.double().eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("squeezenet1_1", 32),
        ("alexnet", 64),
        ("shufflenet_v2_x0_5", 32),
        ("mobilenet_v3_small", 32),
        ("regnet_y_400mf", 32),
        ("resnet18", 32),
        ("densenet121", 32),
        ("googlenet", 32),
    ],
)
def test_same_logits_as_torchvision(name, size):
    from torchvision import models

    extra = {"aux_logits": False, "init_weights": False, "transform_input": True} if name == "googlenet" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = with_statistics(models.get_model(name, weights=None, num_classes=3, **extra))
    weights = torch.cat([tensor.detach().flatten() for _, tensor in named_tensors(module)])
    images = torch.randn(2, 3, size, size, generator=named_generator(0, "x")).double()
    before = torch.get_rng_state()
    network = build_network(config_of(name, **PUBLISHED), (3, size, size), 3)
    assert torch.equal(torch.get_rng_state(), before)
    expected = module(images)
    assert expected.abs().max() > 1e-6
    assert torch.allclose(network(weights, images), expected, rtol=1e-9)
    assert network.shapes.keys() == {k for k in module.state_dict() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("kind", ["convnext", "vit"])
def test_same_logits_with_layer_normalisation(kind):
    from torchvision.models import ConvNeXt, VisionTransformer, convnext

    blocks = [convnext.CNBlockConfig(8, 8, 1), convnext.CNBlockConfig(8, None, 1)]
    module = ConvNeXt(blocks, num_classes=4) if kind == "convnext" else VisionTransformer(8, 4, 2, 2, 8, 16, 0.1)
    module = module.double().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=named_generator(0, name)) * 0.5)
    images = torch.randn(2, 3, 8, 8, generator=named_generator(0, "x")).double()
    with Pure():
        ours = module(images)
    assert torch.allclose(ours, module(images), rtol=1e-9)


ATTENTION = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()
STATISTICS = torch.tensor([[0.1, -0.2, 0.3, 0.0], [1.0, 0.5, 2.0, 3.0]]).double()  # of four channels
OPERATIONS = {  # operations of float64 images [2, 4, 3, 3], away from kinks
    "batch_norm": lambda x: F.batch_norm(x, STATISTICS[0], STATISTICS[1], x[1, :, 0, 0], x[1, :, 1, 1]),
    "layer_norm": lambda x: F.layer_norm(x, (3, 3), x[0, 0], x[0, 1]),
    "last_dimension": nn.LayerNorm(3).double(),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "larger_pool": lambda x: F.adaptive_avg_pool2d(x, 2),
    "silu": nn.SiLU(inplace=True),
    "hardsigmoid": lambda x: F.hardsigmoid(4 * x),
    "attention": lambda x: ATTENTION(*[x.flatten(2).mT] * 3, need_weights=False)[0],
    "add": lambda x: x.clone().__iadd__(x**2),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_replaced_operations(name):
    """The values of torch's own, and right derivatives of first and second order."""
    x = torch.randn(2, 4, 3, 3, generator=named_generator(0, name)).double()
    function = OPERATIONS[name]

    def pure(x):
        with Pure():
            return function(x)

    assert torch.allclose(pure(x), function(x.clone()), rtol=1e-12)
    leaf = x.requires_grad_()
    assert gradcheck(pure, leaf)
    assert gradgradcheck(pure, leaf)


def test_nothing_in_place_and_no_dropout(tiny_classifiers):
    network = build_network(config_of("tiny_plain"), (3, 8, 8), 4)
    weights = network.initial_weights(1, named_generator(0, "w"))[0]
    images = torch.randn(2, 3, 8, 8, generator=named_generator(0, "x"))
    before = weights.clone(), images.clone()
    assert torch.equal(network(weights, images), network(weights, images))
    assert torch.equal(weights, before[0])
    assert torch.equal(images, before[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["norm", "plain", "vit"])
def test_bfloat16(tiny_classifiers, kind):
    generator = named_generator(0, "precision")
    exact, rounded = (
        build_network(config_of(f"tiny_{kind}", **PUBLISHED, precision=precision), (3, 8, 8), 4)
        for precision in ("float32", "bfloat16")
    )
    weights = torch.rand(1, 1, exact.num_weights, generator=generator) * 0.3
    images = torch.randn(1, 1, 4, 3, 8, 8, generator=generator)
    distilled = DistilledSet(images, torch.eye(4)[None, None], torch.full((1, 2, 1), -3.0))
    real = torch.randn(16, 3, 8, 8, generator=generator), torch.randint(4, (16,), generator=generator)
    losses, gradients = zip(*(hypergradient(net, distilled, weights, *real) for net in (exact, rounded)), strict=True)
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert gradients[1].images.dtype == torch.float32
    ours, theirs = (gradient.images.flatten() for gradient in gradients)
    assert 0.9 < F.cosine_similarity(ours, theirs, dim=0) < 1 - 1e-6


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet81", (3, 32, 32), "torchvision has no classifier of that name; did you mean resnet18"),
        ("", (3, 32, 32), "no classifier of that name; as torchvision:alexnet"),
        ("fcn_resnet50", (3, 32, 32), "no classifier of that name"),
        ("AlexNet", (3, 64, 64), "no classifier of that name; did you mean alexnet"),
        ("alexnet", (1, 64, 64), "takes images of 3 channels, not 1; set data.channels=3"),
        ("alexnet", (3, 32, 32), "does not fit images of 32x32 pixels: .*too small"),
        ("vit_b_16", (3, 32, 32), "does not fit images of 32x32 pixels: Wrong image height! Expected 224"),
        ("resnet18", (3, 32, 32), "has batch normalisation.*weights=fixed_pretrained with bank=published"),
        ("swin_t", (3, 32, 32), "keeps tables"),
    ],
)
def test_what_does_not_fit_is_said(name, shape, words):
    with pytest.raises(UserError, match=f"^network=torchvision:{name}.*{words}") as error:
        build_network(config_of(name), shape, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("update", [{}, {"weights": "fixed_pretrained", "bank": "banks/mine"}])
def test_batch_normalisation_needs_published_weights(tiny_classifiers, update):
    with pytest.raises(UserError, match="has batch normalisation"):
        build_network(config_of("tiny_norm", **update), (3, 8, 8), 4)


def test_default_init_says_what_it_cannot_draw(tiny_classifiers):
    with pytest.raises(UserError, match="init=default: has no rule for the class_token of a VisionTransformer"):
        build_network(config_of("tiny_vit", **{"network.init": "default"}), (3, 8, 8), 4)


def test_constant_statistics_are_said_once(tiny_classifiers, caplog):
    with caplog.at_level(logging.WARNING, "raydistill"):
        build_network(config_of("tiny_plain", **PUBLISHED), (3, 8, 8), 4)
        assert not caplog.messages
        build_network(config_of("tiny_norm", **PUBLISHED), (3, 8, 8), 4)
    [message] = caplog.messages
    assert "torchvision:tiny_norm" in message
    assert "statistics" in message
