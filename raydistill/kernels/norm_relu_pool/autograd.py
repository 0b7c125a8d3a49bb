"""Instance norm, ReLU and 2x2 average pooling as one operation: fast on a CPU, differentiable twice.

torch's three operations write and read all of the convolution's output several times, which takes longer than the
convolution. Here a plane of it stays in the processor's cache.
"""

from typing import Any

from torch import Tensor

import raydistill.kernels.norm_relu_pool.operations  # noqa: F401 - it defines the operations
from raydistill.kernels.operation import Operation, ops


def norm_relu_pool(y: Tensor, gain: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Return avg_pool2d(relu(instance_norm(y)), 2) of images with channels last, for which `can_do` returns true.

    Args:
        y: [B, H, W, C].
        gain: of each channel after normalisation [C].
        bias: likewise [C].
        epsilon: what is added to the variance.

    Returns:
        [B, H // 2, W // 2, C].
    """
    pooled: Tensor = _NormReluPool.apply(y, gain, bias, epsilon)[0]
    return pooled


class _NormReluPool(Operation):
    ranks = (4, 1, 1)
    shares = False

    @staticmethod
    def forward(y: Tensor, gain: Tensor, bias: Tensor, epsilon: float) -> Any:
        return ops.norm_relu_pool(y, gain, bias, epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *statistics = output
        ctx.save_for_backward(*inputs[:3], *statistics)
        ctx.mark_non_differentiable(*statistics)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> Any:
        y, gain, bias, *statistics = ctx.saved_tensors
        return *_Backward.apply(g, y, gain, bias, *statistics), None


class _Backward(Operation):
    ranks = (4, 4, 1, 1, 2, 2)
    shares = False

    @staticmethod
    def forward(*tensors: Tensor) -> Any:
        return ops.norm_relu_pool_backward(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, u: Tensor, to_gain: Tensor, to_bias: Tensor) -> Any:
        return *_Second.apply(u, to_gain, to_bias, *ctx.saved_tensors), None, None, None


class _Second(Operation):
    ranks = (4, 1, 1, 4, 4, 1, 1, 2, 2)
    shares = False

    @staticmethod
    def forward(*tensors: Tensor) -> Any:
        return ops.norm_relu_pool_second(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: there is no third derivative."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise NotImplementedError("norm_relu_pool has no third derivative; RAYDISTILL_NATIVE=0 uses torch's operations")
