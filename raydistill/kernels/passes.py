"""Passes: functions from a program to one that computes the same in fewer or faster operations.

Results keep their bits, except by those of `product_passes.py`.
"""

import torch

from raydistill.kernels.product_passes import (
    PRODUCTS,
    add_zeros_to_long_products,
    fuse_sums_with_products,
    is_sum,
    move_transposes,
)
from raydistill.kernels.program import Name, Operation, Program, Rewriting, rewrite

aten = torch.ops.aten

VIEWS = (aten.view.default, aten._unsafe_view.default)
CREATION = (
    *(aten.zeros, aten.zeros_like, aten.new_zeros, aten.ones, aten.ones_like, aten.new_ones),
    *(aten.full, aten.full_like, aten.new_full),
)


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
        if is_sum(operation):
            for zero, other in ((first, second), (second, first)):
                if written.layouts.get(other) == layout and zero in written.constants:
                    return other if not written.constants[zero].any() else None
        return None

    return rewrite(program, rule)


def allow_other_strides(program: Program) -> Program:
    """Return the program with views that copy where, after other passes, their argument has other strides."""

    def rule(operation: Operation, written: Rewriting) -> Name | None:
        if operation.function not in VIEWS:
            return None
        return written.write(aten.reshape.default, operation.args, written.layouts[operation.output])

    return rewrite(program, rule)
