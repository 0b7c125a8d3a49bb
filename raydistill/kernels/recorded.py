"""Recorded functions: what torch computed the first time, replayed without what it took to find out.

Autograd builds a graph at each call, and vmap wraps tensors, level upon level; for networks as small as those of this
field that takes longer than the arithmetic. But the operations that come out are the same every time. So the first
call writes them down, as a straight-line program, and later calls run just that.

The functions must be pure: tensors in, tensors out, no branch that depends on values, nothing written to the tensors
that come in. They may write in place to tensors of their own, as some of torch's derivatives do: that is recorded as
operations that give new ones. A function that does what cannot be recorded is called as it is, every time, and a line
says so.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._utils import _functionalize_sync
from torch.utils._pytree import tree_flatten, tree_map

from raydistill.kernels.compile import compiled, compiled_halves
from raydistill.kernels.trace import Tape, layout, whole
from raydistill.system.errors import UserError

Function = Callable[..., Any]

WRITES_TO_INPUTS = "the network writes in place to its weights or images, which others use too: let it write to a copy"


def recorded(function: Function, compile: bool = False) -> Function:
    """`function` of tensors, recorded at the first call for each set of shapes.

    Raises:
        UserError: when called, if the function writes to the tensors that it is given.
    """
    return _by_layout(function, functools.partial(_record, compile), _as_it_is)


def recorded_vjp(
    function: Callable[..., Tensor], compile: bool = False
) -> Callable[..., tuple[Tensor, Callable[[Tensor], Any]]]:
    """`function`, and what `torch.func.vjp` gives beside its value; recorded at the first call for each set of shapes.

    Returns:
        A function of the same tensors. It returns the value, and a function from the value's gradient to those of the
        tensors. (`torch.func` itself takes two seconds to import what it may need.)

    Raises:
        UserError: when called, if the function writes to the tensors that it is given.
    """
    return _by_layout(function, functools.partial(_record_halves, compile), _vjp_as_it_is)


def _by_layout(
    function: Function, record: Callable[[Function, Sequence[Tensor]], Function], as_it_is: Function
) -> Function:
    """What `record` makes of the function for each set of shapes; `as_it_is` of it where it can make nothing."""
    programs: dict[Any, Function] = {}

    def call(*args: Tensor) -> Any:
        key = layout(args)
        if key not in programs:
            try:
                programs[key] = record(function, args)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as why:
                _as_it_is(function, *args)  # raises what is wrong with the function itself
                _say(getattr(function, "func", function).__qualname__, str(why).partition("\n")[0])
                programs[key] = functools.partial(as_it_is, function)
        return programs[key](*args)

    return torch.no_grad()(call)


@functools.cache
def _say(name: str, why: str) -> None:
    """Once a process."""
    logging.getLogger("raydistill").warning("%s cannot be recorded and runs slower, as it is: %s", name, why)


def _record(compile: bool, function: Function, args: Sequence[Tensor]) -> Function:
    tape = Tape(args)
    outputs, tree = _on_tape(tape, function, args)
    names = tape.names(args), tape.names(outputs)
    program = (compile and compiled(tape, *names, args)) or tape.program(*names)
    return lambda *again: tree.unflatten(program(*again))


def _record_halves(compile: bool, function: Function, args: Sequence[Tensor]) -> Function:
    """The forward half; it returns the value and the other half, which takes what the forward half keeps for it."""

    def both(*args: Tensor) -> list[Tensor]:
        output, leaves = _graph(function, args[:-1])
        return [output, *torch.autograd.grad(output, leaves, args[-1])]

    cotangent = torch.zeros_like(_as_it_is(function, *args))
    tape = Tape([*args, cotangent])
    (output, *gradients), _ = _on_tape(tape, both, [*args, cotangent])
    inputs, [result, d_result], wanted = tape.names(args), tape.names([output, cotangent]), tape.names(gradients)
    halves = compile and compiled_halves(tape, inputs, d_result, result, wanted, [*args, cotangent])
    forward, backward = halves or _halves(tape, inputs, d_result, result, wanted)

    def call(*again: Tensor) -> tuple[Tensor, Function]:
        value, *kept = forward(*again)
        return value, lambda cotangent: backward(cotangent, *kept)

    return call


def _halves(
    tape: Tape, inputs: Sequence[str], cotangent: str, result: str, wanted: Sequence[str]
) -> tuple[Function, Function]:
    """Programs from inputs to [result, *kept], and from [cotangent, *kept] to what is wanted."""
    first = {step.output for step in tape.needed([result])} | set(inputs)
    second = tape.needed(wanted, first)
    kept = sorted(first & ({name for step in second for name in step.inputs} | {whole(name) for name in wanted}))
    return tape.program(inputs, [result, *kept]), tape.program([cotangent, *kept], wanted)


def _on_tape(tape: Tape, function: Function, args: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
    """Writes the function down: its outputs, and the tree that they are the leaves of.

    torch turns what it writes in place into operations that give new tensors, and views of them, before the tape sees
    them. (This is what `torch.func.functionalize` does.)
    """
    torch._enable_functionalization(reapply_views=True)
    try:
        with tape:
            given = [torch._to_functional_tensor(arg) for arg in args]
            outputs, tree = tree_flatten(function(*given))
            outputs, after = ([_settled(tensor) for tensor in tensors] for tensors in (outputs, given))
    finally:
        torch._disable_functionalization()
    if tape.names(after) != tape.names(args):
        raise UserError(WRITES_TO_INPUTS)
    return outputs, tree


def _settled(tensor: Tensor) -> Tensor:
    """With all that was written to it."""
    if not torch._is_functional_tensor(tensor):
        return tensor
    _functionalize_sync(tensor)
    return torch._from_functional_tensor(tensor)


def _as_it_is(function: Function, *args: Tensor) -> Any:
    versions = [arg._version for arg in args]
    outputs = tree_map(Tensor.detach, function(*args))
    if versions != [arg._version for arg in args]:
        raise UserError(WRITES_TO_INPUTS)
    return outputs


def _vjp_as_it_is(function: Function, *args: Tensor) -> tuple[Tensor, Function]:
    output, leaves = _graph(function, args)
    return output.detach(), lambda cotangent: torch.autograd.grad(output, leaves, cotangent, retain_graph=True)


def _graph(function: Function, args: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The output, and the leaves that autograd can derive it for."""
    with torch.enable_grad():
        leaves = [arg.detach().requires_grad_() for arg in args]
        return function(*leaves), leaves
