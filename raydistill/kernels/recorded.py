"""Recorded functions replay the operations that torch ran at the first call, without autograd and vmap around them.

Autograd builds a graph at each call, and vmap wraps tensors in several levels; for networks as small as those of this
field that takes longer than the arithmetic. But the operations are the same every time. So the first call traces them
as a program, and later calls run the program.

The functions must be pure: tensors in, tensors out, no branch that depends on values, nothing written to the tensors
that come in. They may write in place to tensors of their own, as some of torch's derivatives do: these are
recorded as operations that return new tensors. A function that cannot be recorded is called as it is, every time, and
a warning names the reason.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from raydistill.kernels.codegen import function_of
from raydistill.kernels.compile import compiled, compiled_halves
from raydistill.kernels.passes import eliminate_dead_code, simplified
from raydistill.kernels.program import Layout, Program
from raydistill.kernels.pullback import pullback
from raydistill.kernels.trace import WRITES_TO_INPUTS, trace
from raydistill.system.errors import UserError

Function = Callable[..., Any]


def recorded(function: Function, compile: bool = False) -> Function:
    """Return the function of tensors, recorded at the first call for each set of shapes.

    Raises:
        UserError: when called, if the function writes to the tensors that it is given.
    """
    return _by_layout(function, functools.partial(_record, compile), _as_it_is)


def recorded_vjp(
    function: Callable[..., Tensor], compile: bool = False
) -> Callable[..., tuple[Tensor, Callable[[Tensor], Any]]]:
    """Return the function with its vector-Jacobian product, recorded at the first call for each set of shapes.

    Returns:
        A function of the same tensors. As `torch.func.vjp` it returns the value, and a function from the value's
        gradient to those of the tensors. (`torch.func` itself takes two seconds to import what it may need.)

    Raises:
        UserError: when called, if the function writes to the tensors that it is given.
    """
    return _by_layout(function, functools.partial(_record_halves, compile), _vjp_as_it_is)


def _by_layout(
    function: Function, record: Callable[[Function, Sequence[Tensor]], Function], as_it_is: Function
) -> Function:
    """Return what `record` makes of the function for each set of shapes, or `as_it_is` where recording fails."""
    programs: dict[Any, Function] = {}

    def call(*args: Tensor) -> Any:
        key = tuple(map(Layout.of, args))
        if key not in programs:
            try:
                programs[key] = record(function, args)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as why:
                _as_it_is(function, *args)  # This raises the function's own error, if it has one.
                _say(getattr(function, "func", function).__qualname__, str(why).partition("\n")[0])
                programs[key] = functools.partial(as_it_is, function)
        return programs[key](*args)

    return torch.no_grad()(call)


@functools.cache
def _say(name: str, why: str) -> None:
    """Write the warning, once in a process."""
    logging.getLogger("raydistill").warning("%s cannot be recorded and runs slower, as it is: %s", name, why)


def _record(compile: bool, function: Function, args: Sequence[Tensor]) -> Function:
    """Return the function's program as a function."""
    program, tree = trace(function, args)
    program = simplified(program)
    run = (compile and compiled(program, args)) or function_of(program)
    return lambda *again: tree.unflatten(run(*again))


def _record_halves(compile: bool, function: Function, args: Sequence[Tensor]) -> Function:
    """Return the forward half, which returns the value and, given what it keeps, the backward half."""

    def both(*args: Tensor) -> list[Tensor]:
        output, leaves = _graph(function, args[:-1])
        return [output, *pullback(output, leaves, args[-1])]

    args = [*args, torch.zeros_like(_as_it_is(function, *args))]
    program = simplified(trace(both, args)[0])
    forward, backward = (compile and compiled_halves(program, args)) or map(function_of, halves(program))

    def call(*again: Tensor) -> tuple[Tensor, Function]:
        value, *kept = forward(*again)
        return value, lambda cotangent: backward(cotangent, *kept)

    return call


def halves(program: Program) -> tuple[Program, Program]:
    """Return the program of a function and its vector-Jacobian product as two.

    Args:
        program: from (*inputs, cotangent) to (result, *gradients).

    Returns:
        The forward half, from inputs to (result, *kept), and the backward half, from (cotangent, *kept) to gradients.
    """
    *inputs, cotangent = program.inputs
    result, *gradients = program.outputs
    forward = eliminate_dead_code(replace(program, inputs=tuple(inputs), outputs=(result,)))
    known = {*inputs, *(operation.output for operation in forward.operations)}
    backward = eliminate_dead_code(replace(program, inputs=(cotangent, *known), outputs=tuple(gradients)))
    used = {name for operation in backward.operations for name in operation.inputs}
    kept = sorted(known & (used | {name.whole for name in gradients}))
    forward = replace(forward, outputs=(result, *kept))
    return forward, replace(backward, inputs=(cotangent, *kept))


def _as_it_is(function: Function, *args: Tensor) -> Any:
    versions = [arg._version for arg in args]
    outputs = tree_map(Tensor.detach, function(*args))
    if versions != [arg._version for arg in args]:
        raise UserError(WRITES_TO_INPUTS)
    return outputs


def _vjp_as_it_is(function: Function, *args: Tensor) -> tuple[Tensor, Function]:
    output, leaves = _graph(function, args)
    return output.detach(), lambda cotangent: pullback(output, leaves, cotangent, again=True)


def _graph(function: Function, args: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the output, and the leaves for which autograd can compute its gradient."""
    with torch.enable_grad():
        leaves = [arg.detach().requires_grad_() for arg in args]
        return function(*leaves), leaves
