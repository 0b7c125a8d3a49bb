"""The convolution that GPUs use against torch's own: values, derivatives of three orders, vmap."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from raydistill.kernels.convolution import conv2d, convolution
from raydistill.method.rng import named_generator

# channels, outputs, filter, stride, padding, dilation, groups
SHAPES = [(3, 4, 3, 1, 1, 1, 1), (4, 6, 5, 2, 2, 1, 2), (2, 3, 3, 1, 0, 2, 1)]


@pytest.fixture(params=SHAPES, ids=str)
def problem(request):
    """Ours, torch's, and arguments for both, in float64."""
    channels, outputs, size, *layout, groups = request.param
    generator = named_generator(0, "convolution")
    shapes = (2, channels, 9, 8), (outputs, channels // groups, size, size), (outputs,)
    args = [torch.randn(*shape, generator=generator).double() for shape in shapes]
    pairs = [(number, number) for number in layout]
    return (
        lambda x, w, b: convolution(x, w, b, *pairs, groups),
        lambda x, w, b: F.conv2d(x, w, b, *layout, groups),
        args,
    )


def gradients(function, args, depth=0):
    """Of the sum of cubes; with a depth, of the sum of squares of those gradients."""

    def order(function, depth):
        if depth == 0:
            return function
        return order(lambda *a: sum((g**2).sum() for g in grad(function, argnums=(0, 1, 2))(*a)), depth - 1)

    return grad(order(lambda *a: (function(*a) ** 3).sum(), depth), argnums=(0, 1, 2))(*args)


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert other.norm() > 0
        assert (mine - other).norm() < 1e-12 * other.norm()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_value_and_derivatives(problem, depth):
    ours, theirs, args = problem
    assert_same([ours(*args)], [theirs(*args)])
    assert_same(gradients(ours, args, depth), gradients(theirs, args, depth))


@pytest.mark.parametrize("dims", [(None, 0, 0), (0, 0, 0), (0, None, None), (0, None, 0)])
def test_several_at_once(problem, dims):
    ours, theirs, args = problem
    args = [a if d is None else torch.stack([a, -2 * a, a + 1]) for a, d in zip(args, dims, strict=True)]
    for depth in (0, 1):
        assert_same(*(gradients(vmap(function, dims), args, depth) for function in (ours, theirs)))


def test_on_a_cpu_it_is_torchs_own():
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    assert torch.equal(conv2d(x, w, padding="same"), F.conv2d(x, w, padding="same"))
    x.requires_grad_()
    assert type(conv2d(x, w).grad_fn).__name__ == "ConvolutionBackward0"
