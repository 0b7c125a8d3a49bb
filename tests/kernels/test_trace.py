"""A trace is what torch ran, as plain data."""

import numpy as np
import pytest
import torch

from raydistill.kernels.program import Layout
from raydistill.kernels.trace import Tracer, trace
from raydistill.system.errors import UserError

aten = torch.ops.aten
X, W = torch.ones(4, 3), torch.ones(3, 5)


def calls(program):
    return [(operation.output, operation.function, *operation.args) for operation in program.operations]


def test_operations_inputs_and_outputs():
    program, tree = trace(lambda x, w: {"product": x @ w, "input": x}, [X, W])
    assert calls(program) == [("t0", aten.mm.default, "in0", "in1")]
    assert program.inputs == ("in0", "in1")
    assert tree.unflatten(program.outputs) == {"product": "t0", "input": "in0"}
    assert program.layouts["t0"] == Layout(torch.Size([4, 5]), (5, 1), torch.float32, torch.device("cpu"))


def test_several_results_have_an_index():
    program, _ = trace(lambda x: [part + 1 for part in x.split([1, 2], 1)], [X])
    assert calls(program) == [
        ("t0", aten.split_with_sizes.default, "in0", [1, 2], 1),
        ("t1", aten.add.Tensor, "t0[0]", 1),
        ("t2", aten.add.Tensor, "t0[1]", 1),
    ]
    assert [operation.inputs for operation in program.operations] == [("in0",), ("t0",), ("t0",)]


@pytest.mark.parametrize(
    "same", [torch.Tensor.detach, lambda x: x.view(4, 3), lambda x: x.t().t(), lambda x: x.expand(4, 3)]
)
def test_a_tensor_seen_as_it_is_keeps_its_name(same):
    program, _ = trace(lambda x: (x + 1, same(x) * 2), [X])
    assert calls(program)[-1][1:] == (aten.mul.Tensor, "in0", 2)


def test_numbers_are_constants():
    program, _ = trace(lambda x: x * torch.tensor([1.0, 2.0, 3.0]), [X])
    assert calls(program) == [("t0", aten.mul.Tensor, "in0", "c0")]
    assert program.constants["c0"].tolist() == [1, 2, 3]


def test_writes_become_operations_that_return_new_tensors():
    def function(x):
        y = x * 2
        y[0].add_(1)
        return y

    program, _ = trace(function, [X])
    assert len(program.operations) > 2
    assert not any(operation.function._schema.is_mutable for operation in program.operations)
    assert len({operation.output for operation in program.operations}) == len(program.operations)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x.as_strided((3,), (1,)), "depends on where numbers lie"),
        (lambda x: x * x.sum().item(), "gives Python numbers"),
        (lambda x: x @ W, r"a tensor of shape \(3, 5\) comes from outside"),
    ],
)
def test_what_may_differ_at_the_next_call_is_refused(function, why):
    with pytest.raises(RuntimeError, match=why):
        trace(function, [X])


def test_a_written_input_is_refused():
    with pytest.raises(UserError, match="writes in place"):
        trace(lambda x: x.add_(1), [X.clone()])


def test_two_inputs_are_two_tensors():
    with pytest.raises(ValueError, match="same tensor"):
        trace(torch.add, [X, X])


def test_a_tensor_is_not_taken_for_one_that_is_gone():
    """The two have the same place in memory, one after the other."""
    memory = np.ones((4, 3))
    tracer = Tracer([torch.from_numpy(memory)])
    later = torch.from_numpy(memory)
    with tracer, pytest.raises(RuntimeError, match="from outside"):
        later + 1
