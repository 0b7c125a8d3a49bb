"""Programs beside the graphs that torch's own tracer, make_fx, makes of the same functions.

A program has at most as many operations as the graph, without those that no output depends on. As traced it computes
the same bits as the function and the graph. The passes change the order of some sums: what they leave is the same to
rounding errors, and the same bits where there are no products of matrices.
"""

import functools

import pytest
import torch
import torch.nn.functional as F
from test_recorded import dense, draw, filled_by_index, filled_by_slices, overlapping_views, written_base, written_view
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.kernels.codegen import function_of
from raydistill.kernels.passes import eliminate_dead_code, simplified
from raydistill.kernels.trace import trace
from raydistill.method.unroll import inner_step
from raydistill.networks import build_network

ROUNDING = 1e-10  # relative, of float64


def pull(function, *args):
    """The value, and the vector-Jacobian product with a cotangent of cosines."""
    with torch.enable_grad():
        leaves = [arg.detach().requires_grad_() for arg in args]
        output = function(*leaves)
        return output.detach(), *torch.autograd.grad(output, leaves, output.detach().cos())


def several_results(x, w):
    first, rest = (x @ w).split([2, 3], 1)
    values, places = rest.max(1)
    return first * values[:, None], places, torch.std_mean(x, 1)


def constants(x, w):
    return x * torch.tensor([1.0, 2.0, 3.0]).double() + torch.zeros_like(x) + torch.ones(3).double() / 2, w


def views(x, w):
    return x.t().reshape(2, -1)[:, ::2].t() @ w.view(5, 3).expand(1, 5, 3)[0, :2], x.flatten().unfold(0, 3, 2).sum(1)


def step(name):
    network = build_network(
        validated(
            DistillConfig, {"network": {"name": name, **({"width": 4, "depth": 1} if name == "convnet" else {})}}
        ),
        (1, 8, 8),
        3,
    )
    weights = draw(1, 1, network.num_weights) / 10
    return functools.partial(inner_step, network), (weights, draw(1, 3, 1, 8, 8), draw(1, 3, 3).softmax(-1), draw(1))


def classify(x, w):
    return F.cross_entropy(F.relu(x @ w), torch.tensor([0, 1, 2, 3]))


MATRICES = draw(4, 3), draw(3, 5)
WRITING = written_view, written_base, overlapping_views, filled_by_slices, filled_by_index
CASES = {
    "dense": (dense, (draw(4, 3), draw(5, 3), draw(5))),
    "views": (views, MATRICES),
    "several results": (several_results, MATRICES),
    "constants": (constants, MATRICES),
    "classify": (classify, MATRICES),
    "pull of classify": (functools.partial(pull, classify), MATRICES),
    **{function.__name__: (function, MATRICES) for function in WRITING},
}
for name in ("lenet", "convnet"):
    function, args = step(name)
    CASES |= {name: (function, args), f"pull of {name}": (functools.partial(pull, function), args)}


def torchs_graph(function, args):
    """Make torch's graph of the function, without writes in place and without dead code."""
    graph = make_fx(functionalize(function, remove="mutations") if function in WRITING else function)(*args)
    graph.graph.eliminate_dead_code()
    return graph


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_same_results_in_no_more_operations(name):
    function, args = CASES[name]
    graph = torchs_graph(function, args)
    calls = [node for node in graph.graph.nodes if node.op == "call_function" and "getitem" not in node.name]
    traced, _ = trace(function, args)
    shorter = simplified(traced)
    assert len(shorter.operations) <= len(eliminate_dead_code(traced).operations) <= len(calls)
    exact = not any("mm" in str(operation.function) for operation in traced.operations)
    for scale in (1.0, 0.5):
        now = [scale * arg for arg in args]
        expected, theirs = tree_leaves(function(*now)), tree_leaves(graph(*now))
        ours, fast = function_of(traced)(*now), function_of(shorter)(*now)
        for right, other, mine, quick in zip(expected, theirs, ours, fast, strict=True):
            assert torch.equal(other, right)
            assert torch.equal(mine, right)
            assert torch.equal(quick, right) if exact else torch.allclose(quick, right, rtol=ROUNDING, atol=1e-13)
