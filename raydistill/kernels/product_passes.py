"""Passes over products of matrices. They change the order in which numbers are added, so results change by rounding."""

from typing import Any

import torch

from raydistill.kernels.program import Layout, Name, Operation, Program, Rewriting, rewrite

aten = torch.ops.aten

# The operation a + b @ c for each b @ c.
WITH_SUM = {aten.mm.default: aten.addmm.default, aten.bmm.default: aten.baddbmm.default}
PRODUCTS = {*WITH_SUM, *WITH_SUM.values()}
Turn = tuple[Any, tuple[Any, ...]]  # A turn is a function that transposes, with its dimensions.


def add_zeros_to_long_products(program: Program) -> Program:
    """Return the program with 0 + a @ b for products of few rows, each of them a long sum.

    For a @ b cuBLAS takes 52 us on an H200, for the sum with a bias 4.
    """
    zeros: dict[Any, Name] = {}

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        if operation.function is not aten.mm.default:
            return None
        layout, left = written.layouts[operation.output], written.layouts.get(operation.args[0])
        if layout.device.type != "cuda" or layout.shape[0] > 64 or left is None or left.shape[1] < 256:
            return None
        key = layout.shape[1], layout.dtype, layout.device
        if key not in zeros:
            zeros[key] = written.constant(torch.zeros(key[0], dtype=layout.dtype, device=layout.device))
        return written.write(aten.addmm.default, (zeros[key], *operation.args), layout)

    return rewrite(program, rule)


def fuse_sums_with_products(program: Program) -> Program:
    """Return the program with a + b @ c as one operation."""

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        layout = written.layouts.get(operation.output)
        if not is_sum(operation) or layout is None or not layout.is_contiguous:
            return None
        for name, other in (operation.args, operation.args[::-1]):
            product = written.operation(name, WITH_SUM)
            if product and written.layouts[name].shape == layout.shape and _fits(written.layouts[other], layout):
                return written.write(WITH_SUM[product.function], (other, *product.args), layout)
        return None

    return rewrite(program, rule)


def is_sum(operation: Operation) -> bool:
    """Return whether it is a + b of two tensors, without the factor that torch's `add` may have."""
    return (
        operation.function is aten.add.Tensor
        and not operation.kwargs
        and all(isinstance(x, Name) for x in operation.args)
    )


def _fits(summand: Layout, total: Layout) -> bool:
    """Return whether the sum has the number type and the device of a summand."""
    return (summand.dtype, summand.device) == (total.dtype, total.device)


def move_transposes(program: Program) -> Program:
    """Return the program with t(t(a)) = a, t(t(a) @ b) = t(b) @ a, and t(a + t(b)) = t(a) + b.

    That takes fewer copies, and the faster products.
    """

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        if not _is_transpose(operation, written):
            return None
        name, turn = operation.args[0], (operation.function, operation.args[1:])
        total = written.operation(name, [aten.add.Tensor])
        if total is None or not is_sum(total):
            return _transposed(name, turn, written)
        parts = tuple(_transposed(part, turn, written) for part in total.args)
        if not all(parts):
            return None
        return written.write(total.function, parts, written.layouts[operation.output].contiguous())

    return rewrite(program, rule)


def _is_transpose(operation: Operation, written: Rewriting) -> bool:
    """Return whether it swaps the last two dimensions, those of a matrix."""
    if operation.function is not aten.transpose.int:
        return operation.function is aten.t.default
    rank = len(written.layouts[operation.args[0]].shape)
    return {dim % rank for dim in operation.args[1:]} == {rank - 2, rank - 1}


def _transposed(name: Name, turn: Turn, written: Rewriting) -> Name | None:
    """Return the name of the transpose of a tensor, where it is there already or no more operations lead to it."""
    if _is_made_by(turn, name, written):
        return Name(written.operations[name].args[0])
    product = written.operation(name, WITH_SUM)
    if product is None or not any(_is_made_by(turn, factor, written) for factor in product.args):
        return None
    factors = tuple(
        _transposed(factor, turn, written) or written.write(turn[0], (factor, *turn[1]), _turned(factor, turn, written))
        for factor in reversed(product.args)
    )
    return written.write(product.function, factors, _turned(name, turn, written).contiguous())


def _is_made_by(turn: Turn, name: Name, written: Rewriting) -> bool:
    """Return whether a tensor is the transpose of another, by the same call."""
    operation = written.operations.get(name)
    return operation is not None and (operation.function, operation.args[1:]) == turn


def _turned(name: Name, turn: Turn, written: Rewriting) -> Layout:
    """Return the layout of a tensor's transpose."""
    function, dims = turn
    layout = written.layouts[name]
    turned = function(layout.empty("meta"), *dims)
    return layout._replace(shape=turned.shape, stride=turned.stride())
