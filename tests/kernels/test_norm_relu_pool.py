"""The ConvNet's operations for CPUs against torch's own: values, both derivatives, vmap, numbers of threads."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from raydistill.kernels.channels_last import conv2d_channels_last
from raydistill.kernels.norm_relu_pool.autograd import norm_relu_pool
from raydistill.kernels.norm_relu_pool.operations import can_do
from raydistill.kernels.recorded import recorded
from raydistill.method.rng import named_generator

# images, height, width, channels: the ConvNet's on MNIST, odd sides, one and a half vectors, fewer lanes than one
SHAPES = [(3, 28, 28, 32), (2, 7, 7, 16), (2, 5, 6, 24), (4, 8, 8, 3), (1, 2, 3, 1)]
EPSILON = 1e-5


@pytest.fixture(autouse=True)
def _compiled():
    if not can_do(torch.zeros(1)):
        pytest.skip("there is no C compiler, so torch does it all")


def torchs(y, gain, bias):
    """Without group_norm, which vmap does not take in torch 2.8; test_the_convnet_uses_them compares with it."""
    variance, mean = torch.var_mean(y, (1, 2), correction=0, keepdim=True)
    y = ((y - mean) * torch.rsqrt(variance + EPSILON) * gain + bias).permute(0, 3, 1, 2)
    return F.avg_pool2d(F.relu(y), 2).permute(0, 2, 3, 1)


def ours(y, gain, bias):
    return norm_relu_pool(y, gain, bias, EPSILON)


def inputs(shape, dtype=torch.float64, *lead):
    generator = named_generator(1, "norm")
    sizes = shape, shape[-1:], shape[-1:]
    y, gain, bias = (torch.randn(*lead, *size, generator=generator, dtype=torch.float64) for size in sizes)
    return (3 * y + 5).to(dtype), gain.to(dtype), bias.to(dtype)


def test_the_convnet_uses_them(monkeypatch):
    from raydistill.networks import convnet

    network = convnet.ConvNet((1, 28, 28), 10, width=8).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=named_generator(2, "convnet"))
    images = torch.randn(3, 1, 28, 28, generator=named_generator(3, "images"), dtype=torch.float64)
    results = []
    for fast in (True, False):
        if not fast:
            monkeypatch.setattr(convnet, "can_do", lambda x: False)
        logits = network(images)
        results.append([logits, *torch.autograd.grad((logits**2).sum(), list(network.parameters()), allow_unused=True)])
    for (name, _), mine, theirs in zip([("logits", 0), *network.named_parameters()], *results, strict=True):
        if mine is None:  # The bias of a convolution has no effect.
            assert name.endswith("bias")
            assert theirs.abs().max() < 1e-9
        else:
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-11), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient(shape, dtype, tolerance, threads):
    """Against torch's own in float64."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        exact = inputs(shape)
        mine, theirs = ([t.to(dtype).requires_grad_() for t in exact], [t.requires_grad_() for t in exact])
        result, expected = ours(*mine), torchs(*theirs)
        assert (result - expected).norm() <= tolerance * expected.norm()
        direction = torch.randn(expected.shape, generator=named_generator(2, "g"), dtype=torch.float64)
        gradients = (
            torch.autograd.grad(result, mine, direction.to(dtype)),
            torch.autograd.grad(expected, theirs, direction),
        )
        for one, other in zip(*gradients, strict=True):
            assert (one - other).norm() <= tolerance * (1 + other.norm())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES)
def test_second_derivative(shape):
    def order_two(function):
        def bent(*args):
            return (function(*args) ** 3).sum()

        return grad(lambda *args: sum((g**2).sum() for g in grad(bent, argnums=(0, 1, 2))(*args)), argnums=(0, 1, 2))

    for one, other in zip(order_two(ours)(*inputs(shape)), order_two(torchs)(*inputs(shape)), strict=True):
        assert (one - other).norm() <= 1e-10 * (1 + other.norm())


def test_finite_differences():
    args = [t.requires_grad_() for t in inputs((2, 5, 4, 3))]
    assert gradcheck(ours, args)
    assert gradgradcheck(ours, args)


def test_no_third_derivative():
    args = [t.requires_grad_() for t in inputs((1, 4, 4, 2))]
    (first,) = torch.autograd.grad(ours(*args).pow(2).sum(), args[0], create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="no third derivative"):
        second.sum().backward()


@pytest.mark.parametrize("shared", [(), (0,), (1, 2), (1,)])
def test_vmap_of_vmap(shared):
    """With images or gains of each call, or the same for all; the gradient through vmap is the sum."""
    shape, sizes = (2, 6, 6, 5), (2, 3)
    args = [t[0, 0] if i in shared else t for i, t in enumerate(inputs(shape, torch.float64, *sizes))]
    dims = tuple(None if i in shared else 0 for i in range(3))

    def twice(function):
        return vmap(vmap(function, dims), dims)

    assert torch.allclose(twice(ours)(*args), twice(torchs)(*args), atol=1e-12)
    gradients = (grad(lambda *a, f=f: (twice(f)(*a) ** 2).sum(), argnums=(0, 1, 2))(*args) for f in (ours, torchs))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_a_bit_does_not_depend_on_threads():
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        args = [t.requires_grad_() for t in inputs((64, 28, 28, 32), torch.float32)]
        result = ours(*args)
        results.append([result, *torch.autograd.grad(result.pow(2).sum(), args)])
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("shared", [(), (0,), (1,)])
@pytest.mark.parametrize(("channels", "side", "padding"), [(1, 3, 1), (3, 3, 0), (4, 5, 2)])
def test_convolution(channels, side, padding, shared):
    """Values, gradients of gradients, and vmap, against torch's own."""
    generator = named_generator(4, "conv")
    x = torch.randn(2, 3, 9, 8, channels, generator=generator, dtype=torch.float64)
    w = torch.randn(2, 6, channels, side, side, generator=generator, dtype=torch.float64)
    args = [t[0] if i in shared else t for i, t in enumerate((x, w))]
    dims = tuple(None if i in shared else 0 for i in range(2))

    def mine(x, w):
        return conv2d_channels_last(x, w, padding)

    def theirs(x, w):
        return F.conv2d(x.permute(0, 3, 1, 2), w, padding=padding).permute(0, 2, 3, 1)

    def order_two(function):
        def bent(*args):
            return (vmap(function, dims)(*args) ** 3).sum()

        return grad(lambda *args: sum((g**2).sum() for g in grad(bent, argnums=(0, 1))(*args)), argnums=(0, 1))

    assert torch.allclose(vmap(mine, dims)(*args), vmap(theirs, dims)(*args), atol=1e-11)
    for one, other in zip(order_two(mine)(*args), order_two(theirs)(*args), strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_recorded():
    """A recorded gradient calls the operations again, with the same bits."""
    args = inputs((2, 6, 6, 5), torch.float32)

    def gradient(*args):
        with torch.enable_grad():
            args = [t.detach().requires_grad_() for t in args]
            return torch.autograd.grad(ours(*args).pow(2).sum(), args)

    run = recorded(gradient)
    for _ in range(2):
        assert all(torch.equal(one, other) for one, other in zip(run(*args), gradient(*args), strict=True))
