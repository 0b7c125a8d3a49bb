"""Recorded functions compute what the functions do."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import vjp, vmap

from raydistill.method.record import Tape, recorded, recorded_vjp
from raydistill.method.rng import named_generator


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


def test_what_leads_nowhere_is_not_kept():
    tape = Tape(ARGS)
    with tape:
        x, w, _ = ARGS
        unused = (x @ w.t()).exp()
        same = [x + 1, x + 1]
        result = (same[0] * same[1]).t().t() + torch.zeros_like(x)
    steps = [step.function.overloadpacket for step in tape.needed(tape.names([result]))]
    assert steps == [torch.ops.aten.add, torch.ops.aten.mul]
    assert unused.shape == (4, 5)


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


def test_says_what_cannot_be_recorded():
    with pytest.raises(ValueError, match="same tensor"):
        recorded(torch.add)(ARGS[0], ARGS[0])
    outside = draw(4, 3)
    with pytest.raises(RuntimeError, match=r"shape \(4, 3\) comes from outside"):
        recorded(lambda x: x + outside)(ARGS[0])
    with pytest.raises(RuntimeError, match=r"add_.*writes in place"):
        recorded(lambda x: x.clone().add_(1))(ARGS[0])
    with pytest.raises(RuntimeError, match=r"as_strided.*where numbers lie"):
        recorded(lambda x: x.as_strided((2, 2), (1, 1)))(ARGS[0])
