"""The Triton kernels against the C kernels, in Triton's own interpreter, without a GPU. tests/gpu has one."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import sys
import torch
from raydistill.method.rng import named_generator
from raydistill.kernels.conv_relu_pool import operations as ops
from raydistill.kernels.conv_relu_pool import triton_launch as kernels
from raydistill.kernels.conv_relu_pool.c import c_kernels

if c_kernels(torch.float64) is None:
    sys.exit("there is no C compiler")
kernels.SCATTER_W = 4, 4  # so that sums are taken in several parts
generator = named_generator(1, "triton")

def draw(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)

for channels, outputs, height, width, padding, outputs_last, images, nets in (
    (1, 3, 6, 7, 2, True, (), ()),
    (2, 5, 8, 6, 0, False, (), ()),
    (3, 2, 6, 6, 0, True, (2,), (2,)),
    (1, 2, 6, 8, 1, False, (), (2,)),
    (1, 2, 6, 6, 1, True, (2,), ()),
):
    x = draw(*images, 3, height, width, channels)
    w, bias = draw(*nets, outputs, channels, 5, 5), draw(*nets, outputs)
    layout = padding, outputs_last
    z, winner = ops._forward(x, w, bias, *layout)
    mine, won = torch.full_like(z, torch.nan), torch.full_like(winner, 9)
    kernels.forward(x, w, bias, mine, won, *layout)
    assert torch.equal(won, winner)
    assert torch.allclose(mine, z, rtol=1e-12, atol=1e-12)
    single = [t.float() for t in (x, w, bias)]
    rounded, won = torch.full_like(z, torch.nan, dtype=torch.float32), torch.full_like(winner, 9)
    kernels.FEW = 0  # as if there were many windows
    kernels.forward(*single, rounded, won, *layout)
    kernels.FEW = 2**16
    assert torch.equal(won, winner)
    assert torch.allclose(rounded.double(), z, rtol=1e-4, atol=1e-4)
    kernels.gather(x, w, bias, winner, mine.fill_(torch.nan), *layout)
    assert torch.allclose(mine, ops._gather(x, w, bias, winner, *layout), rtol=1e-12, atol=1e-12)
    g = draw(*z.shape)
    expected = ops._scatter_x(g, w, winner, height, width, *layout)
    result = torch.full_like(expected, torch.nan)
    kernels.scatter_x(g, w, winner, result, *layout)
    assert torch.allclose(result, expected, rtol=1e-12, atol=1e-12)
    expected = ops._scatter_w(g, x, winner, *layout)
    result = [torch.full_like(t, torch.nan) for t in expected]
    kernels.scatter_w(g, x, winner, *result, *layout)
    for one, other in zip(result, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
ties = torch.zeros(1, 8, 8, 1, dtype=torch.float64)
ties[0, 6, 6] = torch.nan  # NaN wins, and of equals the first
w, bias = torch.ones(1, 1, 5, 5, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
z, winner = ops._forward(ties, w, bias, 0, True)
mine, won = torch.full_like(z, 7.0), torch.full_like(winner, 9)
kernels.forward(ties, w, bias, mine, won, 0, True)
assert torch.equal(won, winner) and torch.equal(mine.isnan(), z.isnan()) and z.isnan().any()
print("all right")
"""


@pytest.mark.slow
def test_equal_the_c_kernels():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if "no C compiler" in done.stderr:
        pytest.skip("there is no C compiler, so nothing to compare with")
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter is older than this numpy, which converts no more arrays to numbers")
    assert done.stdout == "all right\n", done.stderr
