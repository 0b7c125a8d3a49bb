"""The source of a program: a line for each operation, and a line that frees what is needed no more."""

import weakref

import torch
from torch.utils._pytree import tree_leaves

from raydistill.kernels import codegen
from raydistill.kernels.codegen import function_of, source
from raydistill.kernels.trace import trace

aten = torch.ops.aten


def test_source():
    def function(x):
        first, last = x.split([1, 2], 1)
        return first * torch.tensor(2.0) + last.sum(1, keepdim=True), x

    program, _ = trace(function, [torch.ones(4, 3)])
    text, scope = source(program)
    assert text.splitlines() == [
        "def program(in0):",
        "    t0 = f0(in0, [1, 2], 1)",
        "    t1 = f1(t0[0], c0)",
        "    t2 = f2(t0[1], [1], True)",
        "    del t0",
        "    t3 = f3(t1, t2)",
        "    del t1, t2",
        "    return [t3, in0]",
    ]
    assert scope["c0"] is program.constants["c0"]
    assert scope["f0"] is torch.split_with_sizes  # a shorter way to the same function


def test_arguments_without_a_literal_are_in_the_scope():
    program, _ = trace(lambda x: torch.clamp(x, 0.5, 2).to(torch.float64), [torch.rand(3)])
    text, scope = source(program)
    assert "k" in text
    assert {0.5, torch.float64} <= {value for name, value in scope.items() if name[0] == "k"}
    x = torch.tensor([0.1, 1.7, 3.0])
    assert torch.equal(function_of(program)(x)[0], x.clamp(0.5, 2).double())


def test_memory_is_freed_after_its_last_use(monkeypatch):
    """When the third operation runs, the first result is gone."""
    program, _ = trace(lambda x: ((x + 1) * 2).exp(), [torch.ones(3)])
    results, alive = [], []

    def watched(function):
        def call(*args):
            alive.append([result() is not None for result in results])
            made = function(*args)
            results.append(weakref.ref(made))
            return made

        return call

    calls = {aten.add.Tensor: torch.add, aten.mul.Tensor: torch.mul, aten.exp.default: torch.exp}
    monkeypatch.setattr(codegen, "FASTER_CALLS", {name: watched(call) for name, call in calls.items()})
    function_of(program)(torch.ones(3))
    assert alive == [[], [True], [False, True]]


def test_faster_calls_compute_what_the_operations_do():
    x, y = torch.rand(3, 3) + 1, torch.rand(3, 3)
    arguments = {
        aten.div.Scalar: (x, 2),
        aten.cat.default: ([x, y],),
        aten.expand.default: (x[0], [3, 3]),
        aten.permute.default: (x, [1, 0]),
        aten.reshape.default: (x, [9]),
        aten.split_with_sizes.default: (x, [1, 2]),
        aten.squeeze.dim: (x[:1], 0),
        aten.sum.dim_IntList: (x, [1]),
        aten.transpose.int: (x, 0, 1),
        aten.unsqueeze.default: (x, 0),
        aten.addmm.default: (x, x, y),
        aten.baddbmm.default: (x[None], x[None], y[None]),
        aten.bmm.default: (x[None], y[None]),
    }
    for operation, call in codegen.FASTER_CALLS.items():
        schema = operation._schema.arguments
        args = arguments.get(operation, (x, y)[: sum(not each.has_default_value() for each in schema)])
        for ours, theirs in zip(tree_leaves(call(*args)), tree_leaves(operation(*args)), strict=True):
            assert torch.equal(ours, theirs)
