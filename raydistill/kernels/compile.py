"""Recorded programs, compiled by torch's compiler: many small kernels become a few.

A program has no branches and no side effects, so the compiler takes it whole. Of a function and its gradient it also
chooses what is kept from one to the other and what is computed again (min-cut rematerialization).
"""

import functools
import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from raydistill.kernels.program import Name, Program

Function = Callable[..., Any]
Made = TypeVar("Made")


def _or_none(compile: Callable[..., Made]) -> Callable[..., Made | None]:
    """Return `compile` as a function that returns None, after a warning, where torch's compiler fails."""

    @functools.wraps(compile)
    def tried(*args: Any) -> Made | None:
        try:
            return compile(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Torch's compiler, Triton and the C compiler raise many kinds.
            _say(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
            return None

    return tried


@functools.cache
def _say(why: str) -> None:
    """Write the warning, once in a process."""
    logging.getLogger("raydistill").warning(
        "compile: torch's compiler cannot do it, so all runs as recorded; compile=false does not ask it (%s)", why
    )


@_or_none
def compiled(program: Program, args: Sequence[Tensor]) -> Function:
    """Return the program compiled for tensors like `args`; None where that cannot be done."""
    graph, constants = graph_of(program)
    return _run(graph, constants, [*args, *constants])


@_or_none
def compiled_halves(program: Program, args: Sequence[Tensor]) -> tuple[Function, Function]:
    """Return a function and its vector-Jacobian product compiled, or None where that cannot be done.

    Args:
        program: from the function's inputs and the cotangent to its result and the gradients.
        args: tensors like its inputs.

    Returns:
        The one from inputs to [result, *kept], and the one from (cotangent, *kept) to the gradients.
    """
    import torch._functorch.config as partitioner
    import torch._inductor.lowering  # noqa: F401 (which decompositions look for)
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    graph, constants = graph_of(program)
    *given, cotangent = args

    def joint(primals: list[Tensor], tangents: list[Tensor]) -> Any:
        return graph(*primals[: len(given)], *tangents, *primals[len(given) :])

    primals = [*given, *constants]
    simple = make_fx(joint, select_decomp_table(), tracing_mode="fake")(primals, [cotangent])
    for i, node in enumerate(node for node in simple.graph.nodes if node.op == "placeholder"):
        node.name = node.target = (
            f"primals_{i + 1}" if i < len(primals) else "tangents_1"
        )  # The partitioner knows both by name.
    simple.recompile()
    with partitioner.patch(aggressive_recomputation=True):  # This saves half the memory for 8% of the time.
        first, second = min_cut_rematerialization_partition(
            simple, [*primals, cotangent], compiler="inductor", num_fwd_outputs=1
        )
    forward = _run(first, constants, primals)
    _, *kept = forward(*given)
    backward = _run(second, [], [*kept, cotangent])
    return forward, lambda cotangent, *kept: backward(*kept, cotangent)


def graph_of(program: Program) -> tuple[fx.GraphModule, list[Tensor]]:
    """Return the program as one of torch's graphs, which takes the inputs and behind them constants; and these."""
    graph = fx.Graph()
    nodes = {name: graph.placeholder(name) for name in [*program.inputs, *program.constants]}

    def node(name: Name) -> fx.Node:
        if name not in nodes:  # The name is t5[0], one of several results.
            nodes[name] = graph.call_function(operator.getitem, (nodes[name.whole], int(name.part[1:-1])))
        return nodes[name]

    for operation in program.operations:
        call = operation.renamed(node)
        nodes[operation.output] = graph.call_function(call.function, call.args, call.kwargs)
    graph.output([node(name) for name in program.outputs])
    return fx.GraphModule(torch.nn.Module(), graph), list(program.constants.values())


def _run(graph: fx.GraphModule, constants: list[Tensor], args: Sequence[Tensor]) -> Function:
    """Return the graph compiled for tensors like `args`, and given its constants."""
    from torch._inductor import compile as inductor

    function = inductor(graph, list(args))
    return (lambda *given: function(*given, *constants)) if constants else function
