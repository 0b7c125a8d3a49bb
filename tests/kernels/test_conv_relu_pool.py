"""The C kernels against torch's convolution, ReLU and pool: values, derivatives, vmap."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from raydistill.kernels.conv_relu_pool.autograd import conv_relu_pool
from raydistill.kernels.conv_relu_pool.c import c_kernels
from raydistill.method.rng import named_generator

module = sys.modules["raydistill.kernels.conv_relu_pool.operations"]

# channels, outputs, height, width, padding: LeNet's on MNIST, CIFAR-10 and digits, odd sizes, a single window
SHAPES = [(1, 6, 28, 28, 2), (6, 16, 14, 14, 0), (3, 6, 32, 32, 0), (1, 6, 8, 8, 2), (6, 16, 4, 4, 2), (2, 9, 11, 8, 1)]


def plain(images, weight, bias, padding, outputs_last):
    pooled = F.max_pool2d(F.relu(F.conv2d(images.permute(0, 3, 1, 2), weight, bias, padding=padding)), 2)
    return pooled.permute(0, 2, 3, 1) if outputs_last else pooled


@pytest.fixture(autouse=True)
def _compiled():
    if c_kernels(torch.float32) is None:
        pytest.skip("there is no C compiler, so torch does it all")


def inputs(shape, dtype, *lead):
    channels, outputs, height, width, padding = shape
    sizes = (3, height, width, channels), (outputs, channels, 5, 5), (outputs,)
    generator = named_generator(1, "conv")
    return *(torch.randn(*lead, *size, generator=generator).to(dtype) for size in sizes), padding


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("outputs_last", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape, dtype, tolerance, outputs_last, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, w, b, padding = inputs(shape, dtype)
        ours, theirs = ([t.clone().requires_grad_() for t in (x, w, b)] for _ in range(2))
        result, expected = conv_relu_pool(*ours, padding, outputs_last), plain(*theirs, padding, outputs_last)
        assert torch.allclose(result, expected, atol=tolerance)
        assert result.shape == expected.shape
        direction = torch.randn(expected.shape, generator=named_generator(2, "g")).to(dtype)
        for mine, other in zip(
            torch.autograd.grad(result, ours, direction), torch.autograd.grad(expected, theirs, direction), strict=True
        ):
            assert torch.allclose(mine, other, atol=20 * tolerance)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_gradients(shape):
    """Second and third order, in float64."""
    x, w, b, padding = inputs(shape, torch.float64)

    def bent(function):
        return lambda *args: (function(*args, padding, True) ** 3).sum()

    def order(function, depth):
        if depth == 0:
            return function
        return order(lambda *args: sum((g**2).sum() for g in grad(function, argnums=(0, 1, 2))(*args)), depth - 1)

    for depth in (1, 2):
        ours = grad(order(bent(conv_relu_pool), depth), argnums=(0, 1, 2))(x, w, b)
        theirs = grad(order(bent(plain), depth), argnums=(0, 1, 2))(x, w, b)
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine - other).norm() < 1e-10 * other.norm()


@pytest.mark.parametrize("shared", [(), (0,), (1, 2), (1,), (2,), (0, 2)])
def test_vmap_and_vmap_of_vmap(shared):
    """With images or weights of each call, or the same for all; the gradient through vmap is the sum."""
    shape, sizes = SHAPES[1], (2, 3)
    full = inputs(shape, torch.float64, *sizes)
    args = [t[0, 0] if i in shared else t for i, t in enumerate(full[:3])]
    dims = tuple(None if i in shared else 0 for i in range(3))

    def twice(function):
        return vmap(vmap(lambda *a: function(*a, shape[-1], False), dims), dims)

    assert torch.allclose(twice(conv_relu_pool)(*args), twice(plain)(*args), atol=1e-12)
    ours, theirs = (
        grad(lambda *a, f=f: (twice(f)(*a) ** 2).sum(), argnums=(0, 1, 2))(*args) for f in (conv_relu_pool, plain)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-9)


def test_vmap_over_another_dimension_and_mixed_levels():
    """Outer calls differ in images, inner ones in weights."""
    x, w, b, padding = inputs(SHAPES[0], torch.float64)
    images, weights = torch.stack([x, -x], 1), torch.stack([w, 2 * w, -w], -1)

    def run(function):
        return vmap(lambda i: vmap(lambda k: function(i, k, b, padding, True), -1)(weights), 1)(images)

    assert torch.allclose(run(conv_relu_pool), run(plain), atol=1e-12)


def test_ties_go_to_the_first_and_nan_wins():
    x = torch.zeros(1, 8, 8, 1, requires_grad=True)
    w, b = torch.ones(1, 1, 5, 5), torch.ones(1)
    ours = torch.autograd.grad(conv_relu_pool(x, w, b, 0, True).sum(), x)[0]
    theirs = torch.autograd.grad(plain(x, w, b, 0, True).sum(), x)[0]
    assert torch.equal(ours, theirs)
    broken = torch.zeros(1, 8, 8, 1)
    broken[0, 6, 6] = torch.nan  # only in the last position of a window
    assert torch.equal(conv_relu_pool(broken, w, b, 0, True).isnan(), plain(broken, w, b, 0, True).isnan())


def test_torch_does_what_the_kernels_cannot(monkeypatch):
    x, w, b, padding = inputs((20, 4, 9, 9, 0), torch.float32)  # too many channels
    assert torch.equal(conv_relu_pool(x, w, b, padding, True), plain(x, w, b, padding, True))
    half = [t.bfloat16() for t in inputs(SHAPES[1], torch.float32)[:3]]
    assert conv_relu_pool(*half, 0, True).dtype == torch.bfloat16
    monkeypatch.setattr(module, "_kernels", lambda device, dtype: None)
    x, w, b, padding = inputs(SHAPES[0], torch.float32)
    assert torch.equal(conv_relu_pool(x, w, b, padding, False), plain(x, w, b, padding, False))
