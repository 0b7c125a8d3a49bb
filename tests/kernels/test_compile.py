"""What torch's compiler is given computes what the recorded programs do. What it makes of it is tested on GPUs."""

import functools
import logging

import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.kernels import compile
from raydistill.kernels.recorded import recorded, recorded_vjp
from raydistill.method.rng import named_generator
from raydistill.method.unroll import inner_step
from raydistill.networks import build_network


@pytest.fixture
def handed_over(monkeypatch):
    """Graphs, run as they are instead of being compiled: that takes a minute each on a CPU."""
    graphs = []

    def run(graph, constants, args):
        graphs.append(graph)
        return lambda *given: graph(*given, *constants)

    monkeypatch.setattr(compile, "_run", run)
    return graphs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet", "convnet", "alexcifarnet"])
@pytest.mark.parametrize("networks", [1, 2])
def test_a_step_and_its_halves(name, networks, handed_over):
    network = build_network(
        validated(DistillConfig, {"network": {"name": name} | ({"width": 4, "depth": 1} if name == "convnet" else {})}),
        (1, 8, 8),
        3,
    )
    generator = named_generator(0, "compile")

    def draw(*shape):
        return torch.randn(*shape, generator=generator).double()

    args = (
        network.initial_weights(networks, generator).double()[None],
        draw(1, 3, 1, 8, 8),
        draw(1, 3, 3).softmax(-1),
        torch.tensor([0.1]).double(),
    )
    cotangent = draw(*args[0].shape)
    step = functools.partial(inner_step, network)
    expected, pull = recorded_vjp(step)(*args)
    again, [whole] = recorded_vjp(step, compile=True), [recorded(step, compile=True)]
    for _ in range(2):
        result, halved = again(*args)
        assert torch.allclose(result, expected, rtol=1e-10)
        assert torch.allclose(whole(*args), expected, rtol=1e-10)
        for mine, other in zip(halved(cotangent), pull(cotangent), strict=True):
            assert torch.allclose(mine, other, rtol=1e-8, atol=1e-12)
    assert len(handed_over) == 3


def test_where_it_cannot_be_compiled_it_runs_as_it_is(monkeypatch, caplog):
    def run(graph, constants, args):
        raise FileNotFoundError("no compiler here\nat all")

    monkeypatch.setattr(compile, "_run", run)
    compile._say.cache_clear()
    replay = recorded(torch.sin, compile=True)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(replay(torch.ones(3)), torch.ones(3).sin())
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "compile: torch's compiler cannot do it, so all runs as recorded; compile=false does not ask it "
    )
    assert "\n" not in line
