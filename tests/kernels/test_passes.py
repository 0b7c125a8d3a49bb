"""Each pass alone: which operations it changes, and that the program computes the same."""

import functools

import pytest
import torch

from raydistill.kernels import passes
from raydistill.kernels.codegen import function_of
from raydistill.kernels.trace import trace
from raydistill.method.rng import named_generator

aten = torch.ops.aten
ROUNDING = 1e-12  # relative, of float64


def draw(*shape):
    return torch.randn(*shape, generator=named_generator(0, "passes")).double()


A, B, C = draw(4, 3), draw(3, 5), draw(4, 5)
A2, B2, C2 = draw(2, 4, 3), draw(2, 3, 5), draw(2, 4, 5)


def counts(program):
    """Return how often each operation is there."""
    names = [operation.function.overloadpacket.__name__ for operation in program.operations]
    return {name: names.count(name) for name in names}


def run(program, args):
    return function_of(program)(*args)


def check(pass_, function, *args, bits=True):
    """Return the counts before and after the pass; with `bits` the results are the same, else to rounding errors."""
    before, _ = trace(function, args)
    after = pass_(before)
    assert after.inputs == before.inputs
    for scale in (1.0, -0.5):
        scaled = [scale * x for x in args]
        for result, again in zip(run(before, scaled), run(after, scaled), strict=True):
            assert result.shape == again.shape
            assert torch.equal(result, again) if bits else torch.allclose(result, again, rtol=ROUNDING)
    return counts(before), counts(after)


def test_dead_code():
    def function(a, b):
        (a @ b).exp()
        return a * torch.tensor(2.0), a + torch.ones(3).double() - torch.ones(3)

    before, after = check(passes.eliminate_dead_code, function, A, B)
    assert before.items() - after.items() == {("mm", 1), ("exp", 1)}
    program = passes.eliminate_dead_code(trace(lambda a: (torch.tensor(2.0) * a, a)[1], [A])[0])
    assert not program.operations
    assert not program.constants


def test_common_subexpressions():
    def function(a, b):
        return (a @ b).exp() + (a @ b).exp(), a.split(1, 1)[0] + a.split(1, 1)[1], a.sum(0) + a.sum(1, keepdim=True)

    before, after = check(passes.eliminate_common_subexpressions, function, A, B)
    assert (before["mm"], before["exp"], before["split"], before["sum"]) == (2, 2, 2, 2)
    assert (after["mm"], after["exp"], after["split"], after["sum"]) == (1, 1, 1, 2)


def test_constants():
    def function(a):
        table = torch.tensor([1.0, 2.0, 3.0]).double().exp().view(1, 3)
        return a * table + torch.zeros_like(a) + torch.full((3,), 2.0) * a.new_ones(3)

    before, after = check(passes.fold_constants, function, A)
    assert before.keys() - after.keys() == {"exp", "view", "zeros_like", "full", "new_ones", "_to_copy"}
    assert after == {"mul": 1, "add": 2}


def identities(a, b):
    product = a @ b
    copy = product.t().clone(memory_format=torch.contiguous_format).t()
    return torch.ops.aten.mul.Scalar(a, 1) + torch.tensor(0.0), product.clone() - 1, copy, a.clone()


def test_identities():
    before, after = check(passes.remove_identities, identities, A, B)
    assert before == {"mm": 1, "t": 2, "clone": 3, "mul": 1, "add": 1, "sub": 1}
    assert after == {"mm": 1, "t": 2, "clone": 2, "sub": 1}  # neither of what is no product, nor in another order


@pytest.mark.parametrize("other", [2, 0.5])
def test_no_identities(other):
    before, after = check(passes.remove_identities, lambda a: torch.ops.aten.mul.Scalar(a, other) + other, A)
    assert before == after


def test_a_zero_that_makes_a_sum_larger_stays():
    before, after = check(passes.remove_identities, lambda a: a[0] + torch.tensor([[0.0] * 3] * 2).double(), A)
    assert before == after


@pytest.mark.parametrize(("args", "fused"), [((A, B, C), "addmm"), ((A2, B2, C2), "baddbmm"), ((A, B, C[0]), "addmm")])
def test_sums_with_products(args, fused):
    def function(a, b, c):
        return a @ b + c, c + a @ b

    _, after = check(
        lambda p: passes.eliminate_dead_code(passes.fuse_sums_with_products(p)), function, *args, bits=False
    )
    assert after == {fused: 2}


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c: torch.add(c, a @ b, alpha=2),  # a factor
        lambda a, b, c: torch.stack([c, c]) + a @ b,  # the product is added twice
        lambda a, b, c: (c.t().contiguous().t() + a @ b).t(),  # other strides
        lambda a, b, c: c.float() + a @ b,  # another number type
        lambda a, b, c: c - a @ b,
    ],
)
def test_what_no_product_with_a_sum_computes(function):
    before, after = check(passes.fuse_sums_with_products, function, A, B, C)
    assert before == after


def t(x):
    return x.transpose(-2, -1) if x.dim() == 3 else x.t()


@pytest.mark.parametrize("args", [(A, B, C), (A2, B2, C2)], ids=["mm", "bmm"])
@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda a, b, c: t(t(b) @ t(a)), 0),
        (lambda a, b, c: t(t(b) @ t(a)) + t(t(c) * 2), 2),
        (lambda a, b, c: t(t(b) @ t(a) + t(c)), 0),
        (lambda a, b, c: t(t(a @ b) @ a), 1),  # t(a) @ (a @ b)
        (lambda a, b, c: t(a @ b), 1),
        (lambda a, b, c: t(t(c) + 1), 2),
    ],
    ids=["both factors", "beside others", "sum", "one factor", "no factor", "no tensor"],
)
def test_transposes(args, function, left):
    """How many transposes are left of each function."""

    def moved(program):
        return passes.allow_other_strides(passes.eliminate_dead_code(passes.move_transposes(program)))

    _, after = check(moved, function, *args, bits=False)
    assert after.get("t", 0) + after.get("transpose", 0) == left


@pytest.mark.parametrize("dims", [(0, 1), (0, 2)])
def test_only_transposes_of_matrices_move(dims):
    square = draw(3, 3, 3)
    function = functools.partial(lambda x, y: (x.transpose(*dims) @ y).transpose(*dims))
    before, after = check(passes.move_transposes, function, square, draw(3, 3, 3) + 1)
    assert before == after


def test_views_of_what_has_other_strides():
    def function(a, b):
        return (a.t() @ a).t().t().reshape(-1), (b.t() @ a.t()).t().reshape(2, 10)

    before, after = check(lambda p: passes.allow_other_strides(passes.move_transposes(p)), function, A, B, bits=False)
    assert "view" in before
    assert "view" not in after


def test_long_products_on_a_gpu_get_a_bias():
    """Traced on the meta device, as if it were a GPU; on other devices nothing changes."""
    program, _ = trace(torch.mm, [draw(10, 256), draw(256, 3)])
    assert passes.add_zeros_to_long_products(program) == program
    layouts = {name: layout._replace(device=torch.device("cuda", 0)) for name, layout in program.layouts.items()}
    gpu = type(program)(program.inputs, program.operations, program.outputs, program.constants, layouts)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "zeros", lambda *size, device, **kw: made.append(device) or torch.ones(*size, **kw) * 0)
        after = passes.add_zeros_to_long_products(gpu)
    assert counts(after) == {"addmm": 1}
    assert made == [torch.device("cuda", 0)]
    assert torch.allclose(run(after, [A := draw(10, 256), B := draw(256, 3)])[0], A @ B)


def test_no_name_is_given_twice():
    program, _ = trace(lambda a, b, c: (t(t(b) @ t(a)) + c, torch.zeros(2) + 1, a.exp()), [A, B, C])
    after = passes.simplified(program)
    names = [*after.inputs, *after.constants, *(operation.output for operation in after.operations)]
    assert len(set(names)) == len(names)
