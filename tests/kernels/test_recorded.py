"""Recorded functions compute what the functions do."""

import functools
import logging

import pytest
import torch
import torch.nn.functional as F
from torch.func import vjp, vmap

from raydistill.kernels.passes import simplified
from raydistill.kernels.recorded import halves, recorded, recorded_vjp
from raydistill.kernels.trace import trace
from raydistill.method.rng import named_generator
from raydistill.system.errors import UserError


def draw(*shape):
    return torch.randn(*shape, generator=named_generator(0, "record")).double()


def dense(x, w, b):
    h = F.relu(x @ w.t() + b)
    return torch.log_softmax(h @ w, -1) * h.mean() + torch.zeros_like(x) + torch.ones(3).double() / 2


ARGS = draw(4, 3), draw(5, 3), draw(5)


def test_replays_and_follows_its_inputs():
    calls = []

    def function(*args):
        calls.append(1)
        return dense(*args)

    replay = recorded(function)
    for scale in (1.0, 2.0, -1.0):
        args = [scale * a for a in ARGS]
        assert torch.allclose(replay(*args), dense(*args), rtol=1e-12)
    assert len(calls) == 1
    other = [draw(6, 3), *ARGS[1:]]
    assert torch.allclose(replay(*other), dense(*other), rtol=1e-12)  # other shapes are recorded anew
    turned = [ARGS[0].t().contiguous().t(), *ARGS[1:]]
    assert torch.allclose(replay(*turned), dense(*turned), rtol=1e-12)  # and so are other strides
    assert len(calls) == 3


@pytest.mark.parametrize("batched", [False, True])
def test_vjp_is_that_of_torch(batched):
    function, args = dense, ARGS
    if batched:
        function, args = vmap(dense, (0, None, 0)), (draw(2, 4, 3), ARGS[1], draw(2, 5))
    replay = recorded_vjp(function)
    for scale in (1.0, -0.5):
        now = [scale * a for a in args]
        expected, pull = vjp(function, *now)
        cotangent = draw(*expected.shape)
        result, mine = replay(*now)
        assert torch.allclose(result, expected, rtol=1e-12)
        for ours, theirs in zip(mine(cotangent), pull(cotangent), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_pulls_of_several_calls_are_kept_apart():
    replay = recorded_vjp(dense)
    pulls = [replay(*(scale * a for a in ARGS))[1] for scale in (1.0, 3.0)]
    cotangent = draw(4, 3)
    for scale, pull in zip((1.0, 3.0), pulls, strict=True):
        _, expected = vjp(dense, *(scale * a for a in ARGS))
        for ours, theirs in zip(pull(cotangent), expected(cotangent), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-14)


def test_halves():
    """The forward half keeps what the backward half needs, and nothing is computed in both."""

    def both(x, w, cotangent):
        product = x @ w
        return product.tanh(), (cotangent * (1 - product.tanh() ** 2)) @ w.t()

    program = simplified(trace(both, [draw(4, 3), draw(3, 5), draw(4, 5)])[0])
    forward, backward = halves(program)
    assert forward.inputs == ("in0", "in1")
    assert forward.outputs[0] == program.outputs[0]
    assert backward.inputs == ("in2", *forward.outputs[1:])
    assert backward.outputs == program.outputs[1:]
    assert "in0" not in backward.inputs
    assert len(forward.operations) + len(backward.operations) == len(program.operations)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_rewritten_products_and_turns(lead):
    """Each way in which transposes, products and sums meet."""
    a, b, c = draw(*lead, 4, 3), draw(*lead, 3, 5), draw(*lead, 5, 4)

    def function(a, b, c):
        t = (lambda x: x.t()) if a.dim() == 2 else (lambda x: x.transpose(1, 2))
        first = t(t(b) @ t(a))  # a @ b
        second = t(t(a @ b) + c @ t(t(a)) @ t(a) * 0.5) + t(c)
        third = t(t(first) * c + t(second)).reshape(*first.shape[:-2], -1)
        return first, second, third, t(t(c) + second).clone(memory_format=torch.contiguous_format)

    replay = recorded(function)
    for scale in (1.0, -2.0):
        args = [scale * x for x in (a, b, c)]
        for ours, theirs in zip(replay(*args), function(*args), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-12)


def test_numbers_in_the_function_are_constants():
    def function(x):
        return x * torch.tensor([1.0, 2.0, 3.0]).double() + torch.tensor(0.5)

    replay = recorded(function)
    for scale in (1.0, 2.0):
        assert torch.equal(replay(scale * ARGS[0]), function(scale * ARGS[0]))


def written_view(x, w):
    y = x * 2
    y[0].mul_(3)
    return y @ w


def written_base(x, w):
    y = x * 2
    view = y.t()[:, 1:]
    y.add_(1).sin_()
    return view.t() @ w


def overlapping_views(x, w):
    y = x * 2
    first, last, before = y[:3], y[1:], y.sum()
    first.mul_(1.5)
    last.add_(first[:, :1].sum())
    return (y.exp_() + before) @ w


def filled_by_slices(x, w):
    y = torch.zeros_like(x)
    y[1:] = x[:3] * 2
    y[0, ::2] = 1.5
    return y @ w


def filled_by_index(x, w):
    y = torch.zeros(4, 3).double()
    y[torch.tensor([0, 2])] = x[1:3]
    y.index_put_((torch.tensor([1, 1]),), x[2:], accumulate=True)
    return y @ w


def written_detached(x, w):
    y = x * 2
    y.detach().mul_(2)
    return y @ w


def turned_in_place(x, w):
    y = (x * 2).unsqueeze_(0).transpose_(1, 2).squeeze_(0)
    return y.t_() @ w


def given_out(x, w):
    out, grown = torch.empty(4, 5).double(), torch.empty(0).double()
    torch.mm(x.detach(), w.detach(), out=out)
    torch.mul(out, 2, out=grown)
    return x @ w + out * grown


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        [x] = ctx.saved_tensors
        result = gradient * x
        result[0].mul_(3)
        result[1:].mul_(3)
        return result.mul_(x)


def written_backward(x, w):
    return Cube.apply(x) @ w


def written_in_batches(x, w):
    def of_a_row(row):
        y = row * 2
        y[0].mul_(3)
        return (y.unsqueeze_(0) ** 2)[0] @ w

    return vmap(of_a_row)(x)


def several_layers(x, w):
    """A gradient with a graph of its own, through an activation and a norm that write."""
    with torch.enable_grad():
        w = w if w.requires_grad else w.detach().requires_grad_()
        h = F.relu((x @ w).add_(0.1), inplace=True)
        loss = F.group_norm(h[:, :4], 2).add_(1).square().mul_(2).sum()
        [gradient] = torch.autograd.grad(loss, w, create_graph=True)
    return x @ w.addcmul(gradient, gradient)


def conjugated(x, w):
    z = torch.fft.fft(x)
    return ((z * z.conj()).real + z.conj().imag) @ w


WRITE = (
    written_view, written_base, overlapping_views, filled_by_slices, filled_by_index, written_detached,
    turned_in_place, given_out, written_backward, written_in_batches, several_layers,
)  # fmt: skip


def with_graph(function, *args):
    """The output, and plain autograd's gradients for a cotangent of ones."""
    with torch.enable_grad():
        leaves = [arg.clone().requires_grad_() for arg in args]
        output = function(*leaves)
        return output.detach(), torch.autograd.grad(output.sum(), leaves)


def compare_with_torch(function):
    """Value and gradients of several inputs, one after the other."""

    @recorded
    @functools.wraps(function)
    def replay(*args):
        return with_graph(function, *args)

    replay_vjp = recorded_vjp(function)
    x, w = draw(4, 3), draw(3, 5) + 0.1
    for scale in (1.0, -0.5, 2.0):
        expected, gradients = with_graph(function, scale * x, scale * w)
        value, pull = replay_vjp(scale * x, scale * w)
        for theirs in (replay(scale * x, scale * w), (value, pull(torch.ones_like(value)))):
            assert torch.allclose(theirs[0], expected, rtol=1e-12)
            assert not theirs[0].requires_grad
            for ours, right in zip(theirs[1], gradients, strict=True):
                assert torch.allclose(ours, right, rtol=1e-10, atol=1e-13)
        for once, twice in zip(pull(torch.ones_like(value)), pull(torch.ones_like(value)), strict=True):
            assert torch.equal(once, twice)


@pytest.mark.parametrize("function", [*WRITE, conjugated], ids=lambda f: f.__name__)
def test_what_is_written_in_place_is_recorded(function, caplog):
    compare_with_torch(function)
    assert not caplog.messages


OUTSIDE, COUNT = draw(4, 5), torch.zeros(1)


def by_memory(x, w):
    return (x * 2).as_strided((4, 3), (1, 1), 2) @ w


def resized(x, w):
    y = (x @ w).detach()
    return x @ w + y.resize_(3, 5).sum() + y.as_strided_((4, 3), (1, 2)).sum()


def of_a_number(x, w):
    return x @ w * x.sum().item()


def of_the_outside(x, w):
    return x @ w + OUTSIDE


def writing_outside(x, w):
    COUNT.add_(1)
    return x @ w


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (by_memory, "aten.as_strided.default depends on where numbers lie"),
        (resized, "aten.as_strided.default depends on where numbers lie"),
        (of_a_number, "aten._local_scalar_dense.default gives Python numbers, which may differ at the next call"),
        (of_the_outside, "a tensor of shape (4, 5) comes from outside the recorded function"),
        (writing_outside, "aten.add_.Tensor writes in place"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_cannot_be_recorded_runs_as_it_is_and_is_said_once(function, why, caplog):
    with caplog.at_level(logging.WARNING, "raydistill"):
        for _ in range(2):
            compare_with_torch(function)
    [message] = caplog.messages
    assert message == f"{function.__name__} cannot be recorded and runs slower, as it is: {why}"


@pytest.mark.parametrize("make", [recorded, recorded_vjp])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.mul_(2),
        lambda x: x[0].zero_(),
        lambda x: x.detach().add_(1),
        lambda x: x.unsqueeze_(0)[0],
        lambda x: x.mul_(2).as_strided((4, 3), (3, 1)),
    ],
)
def test_a_written_input_is_refused(make, write):
    def function(x, w):
        write(x)
        return x @ w

    for _ in range(2):
        with pytest.raises(UserError, match="writes in place to its weights or images"):
            make(function)(draw(4, 3), draw(3, 5))


def test_what_is_wrong_with_the_function_itself_stays(caplog):
    def wrong(x):
        return x @ x

    with pytest.raises(RuntimeError, match="4x3 and 4x3"):
        recorded(wrong)(ARGS[0])

    def once_too_large(x, calls=[]):  # noqa: B006
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    with pytest.raises(torch.OutOfMemoryError):
        recorded(once_too_large)(ARGS[0])
    assert not caplog.messages


def test_two_inputs_are_two_tensors():
    with pytest.raises(ValueError, match="same tensor"):
        recorded(torch.add)(ARGS[0], ARGS[0])
