"""Recorded functions: what torch computed the first time, replayed without what it took to find out.

Autograd builds a graph at each call, and vmap wraps tensors, level upon level; for networks as small as those of this
field that takes longer than the arithmetic. But the operations that come out are the same every time. So the first
call writes them down, as a straight-line program, and later calls run just that.

The functions must be pure: tensors in, tensors out, nothing written in place, no branch that depends on values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from raydistill.method.tape import Tape, layout, whole


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors, recorded at the first call for each set of shapes."""
    programs: dict[Any, Callable[..., Any]] = {}

    def call(*args: Tensor) -> Any:
        key = layout(args)
        if key not in programs:
            tape = Tape(args)
            with tape:
                outputs, tree = tree_flatten(function(*args))
            program = tape.program(tape.names(args), tape.names(outputs))
            programs[key] = lambda *again: tree.unflatten(program(*again))
        return programs[key](*args)

    return torch.no_grad()(call)


def recorded_vjp(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Callable[[Tensor], Any]]]:
    """`function`, and what `torch.func.vjp` gives beside its value; recorded at the first call for each set of shapes.

    Returns:
        A function of the same tensors. It returns the value, and a function from the value's gradient to those of the
        tensors. (`torch.func` itself takes two seconds to import what it may need.)
    """
    halves: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {}

    def call(*args: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
        key = layout(args)
        if key not in halves:
            halves[key] = _record_halves(function, args)
        forward, backward = halves[key]
        output, *saved = forward(*args)
        return output, lambda cotangent: backward(cotangent, *saved)

    return torch.no_grad()(call)


def _record_halves(function: Callable[..., Tensor], args: Sequence[Tensor]) -> Any:
    cotangent = torch.zeros_like(function(*args))
    tape = Tape([*args, cotangent])
    with tape, torch.enable_grad():
        leaves = [arg.detach().requires_grad_() for arg in args]
        output = function(*leaves)
        gradients = torch.autograd.grad(output, leaves, cotangent)
    [result], wanted, inputs = tape.names([output]), tape.names(gradients), tape.names(args)
    first = {step.output for step in tape.needed([result])} | set(inputs)
    second = tape.needed(wanted, first)
    saved = sorted(first & ({name for step in second for name in step.inputs} | {whole(name) for name in wanted}))
    return tape.program(inputs, [result, *saved]), tape.program([*tape.names([cotangent]), *saved], wanted)
