"""Substitutes for operations that cannot be recorded, batched or differentiated twice, or that are slow on a GPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from raydistill.kernels.convolution import conv2d


class Pure(TorchFunctionMode):
    """A context in which networks compute the same with substitutes for some operations.

    Operations in place return new tensors instead. That is the same where their result is used and their argument is
    not used again, which holds for activations and for `x += y`, all that torchvision's classifiers have.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("inplace"):
            kwargs["inplace"] = False
        return INSTEAD.get(function, function)(*args, **kwargs)


def batch_norm(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, training: bool, momentum: float, eps: float
) -> Tensor:
    """Normalise x [B, C, ...] with constant statistics, which get no gradient, so that no step moves them."""
    scale = weight * torch.rsqrt(variance.detach() + eps)
    shift = bias - mean.detach() * scale
    shape = -1, *[1] * (x.dim() - 2)
    return x * scale.view(shape) + shift.view(shape)


def layer_norm(x: Tensor, over: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise over the last dimensions; unlike that of torch's own, the second derivative does not write in place."""
    dims = tuple(range(-len(over), 0))
    centred = x - x.mean(dims, keepdim=True)
    scale = torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)
    return centred * scale * weight + bias


def adaptive_avg_pool(x: Tensor, size: Any) -> Tensor:
    """Return means over a grid of cells; for a single cell without torch's own operation, which rewrites strides."""
    if size in (1, (1, 1)):
        return x.mean((-2, -1), keepdim=True)
    return F.adaptive_avg_pool2d(x, size)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    """Return x * sigmoid(x), with a second derivative that, unlike torch's own, does not write in place."""
    return x * torch.sigmoid(x)


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """Return min(max(x / 6 + 1/2, 0), 1), with a second derivative, which torch's own lacks."""
    return F.hardtanh(x + 3, 0.0, 6.0) / 6


def self_attention(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    width: int,
    heads: int,
    in_weight: Tensor,
    in_bias: Tensor,
    bias_k: None,
    bias_v: None,
    add_zero_attn: bool,
    dropout: float,
    out_weight: Tensor,
    out_bias: Tensor,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Return attention over positions x [L, B, W], also keys and values; torch's own has one derivative only."""
    length, batch, _ = x.shape
    projected = F.linear(x, in_weight, in_bias).view(length, batch, 3, heads, width // heads)
    q, k, v = projected.permute(2, 1, 3, 0, 4).unbind(0)  # Each is [B, heads, L, W / heads].
    attention = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1)
    mixed = (attention @ v).permute(2, 0, 1, 3).reshape(length, batch, width)
    return F.linear(mixed, out_weight, out_bias), None


INSTEAD = {
    F.conv2d: conv2d,
    Tensor.add_: torch.add,
    F.batch_norm: batch_norm,
    F.layer_norm: layer_norm,
    F.adaptive_avg_pool2d: adaptive_avg_pool,
    F.silu: silu,
    F.hardsigmoid: hardsigmoid,
    F.multi_head_attention_forward: self_attention,
}
