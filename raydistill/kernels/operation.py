"""Operations of our own: how torch gets to know them, and how vmap calls them for several networks at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_library = torch.library.Library("raydistill", "DEF")
ops = torch.ops.raydistill
# The functions behind the operations, for callers that need neither autograd nor vmap.
IMPLEMENTATIONS: dict[Any, Callable[..., Any]] = {}


def define(schema: str, implementation: Callable[..., Any], devices: tuple[str, ...]) -> None:
    """Make `ops.NAME` of a schema "NAME(...) -> ..." and a function, for devices by torch's names for them."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    for device in devices:
        _library.impl(name, implementation, device)
    IMPLEMENTATIONS[getattr(ops, name).default] = implementation


class Operation(Function):
    """An operation that takes several networks at once, so that vmap only gives it more of them."""

    ranks: tuple[int, ...]  # The ranks of the tensors for one network.
    shares = True  # Whether it takes a tensor that all networks share as it is, without a dimension for them.

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> Any:
        """Run V calls, each of one network or of N, as one call of V or V * N."""
        several = [a.dim() - (d is not None) - r for a, d, r in zip(args, in_dims, cls.ranks, strict=False)]
        networks = [a.shape[1 if d == 0 else 0] for a, d, n in zip(args, in_dims, several, strict=False) if n]
        shape = (info.batch_size, *networks[:1])

        def merged(arg: Tensor, dim: int | None, rank: int) -> Tensor:
            if dim is None and arg.dim() == rank and cls.shares:
                return arg
            if dim is None or dim != 0:
                arg = arg[None] if dim is None else arg.movedim(dim, 0)
            if networks and arg.dim() == rank + 1:  # The networks of a call share it.
                arg = arg.unsqueeze(1)
            return arg.expand(*shape, *arg.shape[len(shape) :]).flatten(0, len(shape) - 1)

        tensors = [merged(*each) for each in zip(args, in_dims, cls.ranks, strict=False)]
        result = cls.apply(*tensors, *args[len(tensors) :])
        if isinstance(result, tuple):
            return tuple(part.unflatten(0, shape) for part in result), (0,) * len(result)
        return result.unflatten(0, shape), 0


def sum_over_sharing(rank: int, gradient: Tensor) -> Tensor:
    """Return the gradient for a tensor of this rank: the sum over the networks where they share it."""
    return gradient.sum(0) if rank < gradient.dim() else gradient
