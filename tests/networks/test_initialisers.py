"""Initial weights against torch.nn.init and what torch's own layers draw."""

import pytest
import torch
from torch import nn

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.networks.initialisers import Initialiser
from raydistill.networks.lenet import LeNet
from raydistill.system.errors import UserError

SHAPES = {"conv": (12, 5, 3, 3), "grouped": (12, 1, 3, 3), "wide": (20, 150), "tall": (150, 20)}
NETS = 150


def layers():
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(5, 12, 3),
            "grouped": nn.Conv2d(12, 12, 3, groups=12),
            "norm": nn.GroupNorm(3, 12),
            "wide": nn.Linear(150, 20),
            "tall": nn.Linear(20, 150),
        }
    )


def draws(init, gain=None, count=NETS, name="w"):
    """Weights and biases by name, each [count, ...]; the global generator stays as it was."""
    module = layers()
    before = torch.get_rng_state()
    vectors = Initialiser(module, init, gain).draw(count, named_generator(0, name))
    assert torch.equal(torch.get_rng_state(), before)
    parts = vectors.split([p.numel() for p in module.parameters()], 1)
    return {n: x.view(count, *p.shape) for (n, p), x in zip(module.named_parameters(), parts, strict=True)}


def reference(init, gain, shape):
    fill = {
        "xavier": lambda w: nn.init.xavier_normal_(w, gain=1.0 if gain is None else gain),
        # torch knows kaiming's gain by the nonlinearity; sqrt(2) is that of ReLU
        "kaiming": lambda w: nn.init.kaiming_normal_(w).mul_(1.0 if gain is None else gain / 2**0.5),
        "normal": lambda w: nn.init.normal_(w, std=0.02 if gain is None else gain),
        "orthogonal": lambda w: nn.init.orthogonal_(w, gain=1.0 if gain is None else gain),
        "zero": nn.init.zeros_,
        "one": nn.init.ones_,
        "constant": lambda w: nn.init.constant_(w, 0.02 if gain is None else gain),
    }[init]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.stack([fill(torch.empty(shape)) for _ in range(NETS)])


def quantiles(x):
    return x.flatten()[:40000].quantile(torch.linspace(0.05, 0.95, 19))


@pytest.mark.parametrize("gain", [None, 0.7])
@pytest.mark.parametrize("init", ["xavier", "kaiming", "normal", "orthogonal", "constant"])
def test_distribution_is_that_of_torch(init, gain):
    ours = draws(init, gain)
    for name, shape in SHAPES.items():
        weight, theirs = ours[f"{name}.weight"], reference(init, gain, shape)
        assert weight.shape == theirs.shape
        spread = theirs.square().mean().sqrt().item()
        assert (quantiles(weight) - quantiles(theirs)).abs().max() < 0.06 * spread
        assert weight.square().mean().sqrt().item() == pytest.approx(spread, rel=0.05)
    assert not any(ours[f"{name}.bias"].any() for name in (*SHAPES, "norm"))
    assert (ours["norm.weight"] == 1).all()


@pytest.mark.parametrize(("init", "value"), [("zero", 0.0), ("one", 1.0), ("constant", 0.02)])
def test_constants(init, value):
    ours = draws(init)
    for name, shape in SHAPES.items():
        assert torch.equal(ours[f"{name}.weight"], torch.full((NETS, *shape), value))
        assert torch.equal(ours[f"{name}.weight"], reference(init, None, shape))
        assert not ours[f"{name}.bias"].any()
    assert (draws("constant", -3.0)["wide.weight"] == -3).all()


@pytest.mark.parametrize("gain", [None, 2.5])
def test_orthogonal_is_orthogonal(gain):
    ours = draws("orthogonal", gain)
    for name in SHAPES:
        for weight in ours[f"{name}.weight"].double().flatten(2):
            short = weight if weight.shape[0] <= weight.shape[1] else weight.T
            identity = (gain or 1.0) ** 2 * torch.eye(len(short)).double()
            assert torch.allclose(short @ short.T, identity, atol=1e-5)


def test_orthogonal_is_uniform_over_rotations():
    """Without the sign correction, the diagonal of a small matrix would lean to one side (it does in LAPACK)."""
    draw = Initialiser(nn.Linear(2, 2, bias=False), "orthogonal").draw(4000, named_generator(0, "w")).view(-1, 2, 2)
    angles = torch.atan2(draw[:, 1, 0], draw[:, 0, 0])
    counts = torch.histc(angles, 8, -torch.pi, torch.pi)
    assert (counts - 500).abs().max() < 5 * 500**0.5
    assert (draw[:, 0, 0] * draw[:, 1, 1] - draw[:, 0, 1] * draw[:, 1, 0] > 0).float().mean() == pytest.approx(
        0.5, abs=0.04
    )  # rotations and reflections


def test_default_is_what_torch_draws():
    """The same bounds, reached, and evenly filled, as by `reset_parameters`."""
    ours = draws("default")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [layers() for _ in range(NETS)]
    for name, weight in ours.items():
        theirs = torch.stack([dict(m.named_parameters())[name].detach() for m in modules])
        if name.startswith("norm"):
            assert torch.equal(weight, theirs)
            continue
        bound = modules[0][name.partition(".")[0]].weight[0].numel() ** -0.5
        assert 0.98 * bound < weight.abs().max() <= bound
        assert 0.98 * bound < theirs.abs().max() <= bound
        even = (2 * torch.linspace(0.05, 0.95, 19) - 1) * bound
        assert (quantiles(weight) - even).abs().max() < 0.06 * bound
        assert weight.square().mean().item() == pytest.approx(bound**2 / 3, rel=0.06)


@pytest.mark.parametrize("init", ["xavier", "kaiming", "normal", "orthogonal", "default"])
def test_draws_are_independent_and_the_generator_s_alone(init):
    ours = draws(init)
    assert all(torch.equal(again, ours[name]) for name, again in draws(init).items())
    assert not torch.equal(draws(init, name="other")["wide.weight"], ours["wide.weight"])
    weight = ours["wide.weight"].flatten(1)
    similarity = torch.corrcoef(weight) - torch.eye(len(weight))
    assert similarity.abs().max() < 6 * weight.shape[1] ** -0.5


def test_the_stream_of_earlier_versions():
    """Runs are repeatable across versions: mean + std * randn, in one call for all weights."""
    module = LeNet((1, 8, 8), 10)
    for init, gain in (("xavier", None), ("kaiming", None), ("normal", None)):
        ours = Initialiser(module, init, gain).draw(2, named_generator(3, "w"))
        noise = torch.randn(2, ours.shape[1], generator=named_generator(3, "w"))
        std = {"xavier": (2 / (1 * 25 + 6 * 25)) ** 0.5, "kaiming": (2 / 25) ** 0.5, "normal": 0.02}[init]
        assert torch.equal(ours[:, :150], noise[:, :150] * std)


@pytest.mark.parametrize(
    ("init", "gain", "words"),
    [
        ("zero", 1.0, "network.init.gain: there is no such setting with network.init=zero, one or default"),
        ("one", 1.0, "network.init.gain: there is no such setting"),
        ("default", 0.5, "it is one of network.init=xavier, kaiming, normal, orthogonal or constant"),
        ("xavier", 0.0, "network.init.gain: input should be greater than 0, not 0.0"),
        ("normal", -1.0, "network.init.gain: input should be greater than 0, not -1.0"),
        ("constant", float("nan"), "finite"),
        ("random", None, "network.init: should be xavier, kaiming, .* or default, not 'random'"),
    ],
)
def test_settings_that_mean_nothing(init, gain, words):
    with pytest.raises(UserError, match=words):
        validated(DistillConfig, {"network.init": {"name": init, "gain": gain}})


def test_the_gain_of_the_config_is_used():
    small, large = (
        build_network(
            validated(DistillConfig, {"network.init": {"name": "normal", "gain": g}}), (1, 8, 8), 10
        ).initial_weights(1, named_generator(0, "w"))
        for g in (0.1, 0.2)
    )
    assert torch.allclose(2 * small, large)


def test_default_says_what_it_has_no_rule_for():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(UserError, match=r"init=default: has no rule for the scale of a Scaled"):
        Initialiser(Scaled(), "default")
