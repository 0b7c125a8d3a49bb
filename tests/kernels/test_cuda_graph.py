"""CUDA graphs: what is around them. tests/gpu has the real ones."""

import gc
import weakref

import pytest
import torch

from raydistill.kernels.cuda_graph import Capture
from raydistill.method import Distiller
from raydistill.networks import build_network


def test_on_a_cpu_the_function_is_called():
    calls = []

    def function(x):
        calls.append(x)
        return torch.sin(x)

    capture = Capture(torch.device("cpu"))
    for i in range(6):
        assert capture(function, torch.tensor([float(i)])).item() == pytest.approx(torch.tensor(float(i)).sin().item())
    assert len(calls) == 6


def test_a_run_that_is_out_of_use_is_gone_at_once(small, digits):
    """Its networks, constants and (on a GPU) graphs hold gigabytes: they must not wait for Python's collector."""
    gc.disable()
    try:
        network = build_network(small, digits.image_shape, 10)
        distiller = Distiller(small, network, digits.train, 10)
        distiller.step()
        seen = [weakref.ref(thing) for thing in (distiller, network, distiller.captures[0])]
        del distiller, network
        assert [ref() for ref in seen] == [None] * 3
    finally:
        gc.enable()
