"""Passes: functions from a program to one that computes the same in fewer or faster operations.

The results keep their bits, but for the passes that say otherwise.
"""

from typing import Any

import torch

from raydistill.kernels.program import Layout, Name, Operation, Program, Rewriting, rewrite

aten = torch.ops.aten

VIEWS = (aten.view.default, aten._unsafe_view.default)
# The operation a + b @ c for each b @ c.
WITH_SUM = {aten.mm.default: aten.addmm.default, aten.bmm.default: aten.baddbmm.default}
PRODUCTS = {*WITH_SUM, *WITH_SUM.values()}
CREATION = (aten.zeros, aten.zeros_like, aten.new_zeros, aten.ones, aten.ones_like, aten.full, aten.full_like)
Turn = tuple[Any, tuple[Any, ...]]  # A turn is a function that transposes, with its dimensions.


def simplified(program: Program) -> Program:
    """Return the program after all passes.

    Transposes move before sums are fused with products, since they do not move through a product with a sum.
    """
    for each in (
        eliminate_common_subexpressions,
        fold_constants,
        remove_identities,
        add_zeros_to_long_products,
        move_transposes,
        remove_identities,
        fuse_sums_with_products,
        eliminate_common_subexpressions,
        fold_constants,
        allow_other_strides,
        eliminate_dead_code,
    ):
        program = each(program)
    return program


def eliminate_dead_code(program: Program) -> Program:
    """Return the program without operations and constants that no output depends on, or whose result is an input."""
    needed = {name.whole for name in program.outputs}
    kept = []
    for operation in reversed(program.operations):
        if operation.output in needed and operation.output not in program.inputs:
            kept.append(operation)
            needed.update(operation.inputs)
    constants = {name: value for name, value in program.constants.items() if name in needed}
    return Program(program.inputs, tuple(reversed(kept)), program.outputs, constants, program.layouts)


def eliminate_common_subexpressions(program: Program) -> Program:
    """Return the program with what it computes several times computed once."""
    first: dict[str, Name] = {}

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        name = first.setdefault(operation.text, operation.output)
        return name if name != operation.output else None

    return rewrite(program, rule)


def fold_constants(program: Program) -> Program:
    """Return the program with what is the same at each call computed now.

    That is what depends on constants only, or as `zeros_like` on the layout of its argument only.
    """

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        created = operation.function.overloadpacket in CREATION
        constant = operation.inputs and all(name in written.constants for name in operation.inputs)
        if operation.output not in written.layouts or not (created or constant):
            return None
        values = operation.renamed(lambda x: written.constants[x] if constant else written.layouts[x].empty())
        return written.constant(operation.function(*values.args, **values.kwargs).clone())

    return rewrite(program, rule)


def remove_identities(program: Program) -> Program:
    """Return the program without x + 0, 1 * x, and contiguous copies of products, which are contiguous."""

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        layout = written.layouts.get(operation.output)
        first, second = (*operation.args, None, None)[:2]
        if operation.function is aten.clone.default and layout is not None and layout.is_contiguous:
            return first if written.operation(first, PRODUCTS) else None
        if operation.function is aten.mul.Scalar and second == 1:
            return first if written.layouts.get(first) == layout else None
        if _is_sum(operation):
            for zero, other in ((first, second), (second, first)):
                if written.layouts.get(other) == layout and zero in written.constants:
                    return other if not written.constants[zero].any() else None
        return None

    return rewrite(program, rule)


def add_zeros_to_long_products(program: Program) -> Program:
    """Return the program with 0 + a @ b for products of few rows, each of them a long sum.

    For a @ b cuBLAS takes 52 us on an H200, for the sum with a bias 4. Results change by rounding errors.
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
    """Return the program with a + b @ c as one operation. Results change by rounding errors."""

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        layout = written.layouts.get(operation.output)
        if not _is_sum(operation) or layout is None or not layout.is_contiguous:
            return None
        for name, other in (operation.args, operation.args[::-1]):
            product = written.operation(name, WITH_SUM)
            if product and written.layouts[name].shape == layout.shape and _fits(written.layouts[other], layout):
                return written.write(WITH_SUM[product.function], (other, *product.args), layout)
        return None

    return rewrite(program, rule)


def _is_sum(operation: Operation) -> bool:
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

    That takes fewer copies, and the faster products. Results change by rounding errors.
    """

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        if not _is_transpose(operation, written):
            return None
        name, turn = operation.args[0], (operation.function, operation.args[1:])
        total = written.operation(name, [aten.add.Tensor])
        if total is None or not _is_sum(total):
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


def allow_other_strides(program: Program) -> Program:
    """Return the program with views that copy where, after other passes, their argument has other strides."""

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        if operation.function not in VIEWS:
            return None
        return written.write(aten.reshape.default, operation.args, written.layouts[operation.output])

    return rewrite(program, rule)
