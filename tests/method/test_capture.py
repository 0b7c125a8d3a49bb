"""CUDA graphs: on a GPU the real ones, elsewhere what is around them."""

import contextlib

import pytest
import torch

from raydistill.method import Distiller
from raydistill.method.capture import WARM_UP, captured
from raydistill.networks import build_network


class FakeGraph:
    """Stands for torch.cuda.CUDAGraph: notes that it was captured, and replays by hand."""

    replays: int = 0

    def replay(self):
        self.replays += 1


def test_a_cpu_needs_no_graph():
    assert captured(torch.sin, torch.device("cpu")) is torch.sin


def test_warms_up_then_captures_once_and_feeds_the_graph(monkeypatch):
    class Stream:
        def wait_stream(self, other):
            pass

    for name, fake in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": contextlib.nullcontext,
        "CUDAGraph": FakeGraph,
        "graph": contextlib.nullcontext,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    calls = []

    def double(x):
        calls.append(x)
        return 2 * x

    run = captured(double, torch.device("cuda"))
    for i in range(WARM_UP + 3):
        result = run(torch.full((2,), float(i)))
        if i < WARM_UP:
            assert result.tolist() == [2.0 * i] * 2
    assert len(calls) == WARM_UP + 1  # the last one was the capture
    assert run.graph.replays == 3
    assert calls[-1] is run.inputs[0]
    assert run.inputs[0].tolist() == [float(WARM_UP + 2)] * 2  # the newest input is where the graph reads


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("update", [{"weights": "fixed"}, {"weights": "random", "train_nets": 2, "population": 2}])
def test_graphs_change_nothing(small, digits, update, monkeypatch):
    config = small.model_copy(update=update)

    def losses(warm_up):
        monkeypatch.setattr("raydistill.method.capture.WARM_UP", warm_up)
        data = digits.to(torch.device("cuda"))
        distiller = Distiller(config, build_network(config, data.image_shape, 10), data.train, 10)
        return torch.stack([distiller.step() for _ in range(10)])

    assert torch.allclose(losses(WARM_UP), losses(1000), atol=1e-5)
