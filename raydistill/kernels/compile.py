"""Recorded programs, handed to torch's compiler: many small kernels become a few.

A recorded program is straight-line and pure, so the compiler takes it whole. Of a function and its gradient it also
chooses what is kept in between and what is computed again (min-cut rematerialization).
"""

import functools
import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from raydistill.kernels.trace import Name, Tape, aten

Program = Callable[..., Any]
Made = TypeVar("Made")

PLAIN = {aten.view.default: aten.reshape.default, aten._unsafe_view.default: aten.reshape.default}


def _or_none(compile: Callable[..., Made]) -> Callable[..., Made | None]:
    """What `compile` gives; None, and a line, where torch's compiler cannot do it."""

    @functools.wraps(compile)
    def tried(*args: Any) -> Made | None:
        try:
            return compile(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch's compiler, Triton and the C compiler raise many kinds
            _say(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
            return None

    return tried


@functools.cache
def _say(why: str) -> None:
    """Once a process."""
    logging.getLogger("raydistill").warning(
        "compile: torch's compiler cannot do it, so all runs as recorded; compile=false does not ask it (%s)", why
    )


@_or_none
def compiled(tape: Tape, inputs: Sequence[str], outputs: Sequence[str], args: Sequence[Tensor]) -> Program:
    """The program from inputs to outputs, compiled for tensors like `args`; None where that cannot be done."""
    graph, constants = graph_of(tape, inputs, outputs)
    return _run(graph, constants, [*args, *constants])


@_or_none
def compiled_halves(
    tape: Tape, inputs: Sequence[str], cotangent: str, result: str, wanted: Sequence[str], args: Sequence[Tensor]
) -> tuple[Program, Program]:
    """The program from inputs to [result, *kept], and the one from [cotangent, *kept] to what is wanted.

    Args:
        tape: where both are written.
        inputs: names of what the function is given,
        cotangent: of the result's gradient,
        result: of what the function gives,
        wanted: of the gradients.
        args: tensors like those of the inputs and the cotangent.

    Returns:
        Both, or None where that cannot be done.
    """
    import torch._functorch.config as partitioner
    import torch._inductor.lowering  # noqa: F401 (which decompositions look for)
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    graph, constants = graph_of(tape, [*inputs, cotangent], [result, *wanted])
    *given, d_result = args

    def joint(primals: list[Tensor], tangents: list[Tensor]) -> Any:
        return graph(*primals[: len(given)], *tangents, *primals[len(given) :])

    primals = [*given, *constants]
    simple = make_fx(joint, select_decomp_table(), tracing_mode="fake")(primals, [d_result])
    for i, node in enumerate(node for node in simple.graph.nodes if node.op == "placeholder"):
        node.name = node.target = f"primals_{i + 1}" if i < len(primals) else "tangents_1"  # as the partitioner wants
    simple.recompile()
    with partitioner.patch(aggressive_recomputation=True):  # half the memory, for 8% of the time (docs/performance.md)
        first, second = min_cut_rematerialization_partition(
            simple, [*primals, d_result], compiler="inductor", num_fwd_outputs=1
        )
    forward = _run(first, constants, primals)
    _, *kept = forward(*given)
    backward = _run(second, [], [*kept, d_result])
    return forward, lambda cotangent, *kept: backward(*kept, cotangent)


def graph_of(tape: Tape, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[fx.GraphModule, list[Tensor]]:
    """The program from inputs, and behind them constants, to outputs as a graph of torch's; and the constants."""
    graph = fx.Graph()
    steps = tape.needed(outputs, inputs)
    constants = sorted({name for step in steps for name in step.inputs} & tape.constants.keys())
    nodes = {name: graph.placeholder(name) for name in [*inputs, *constants]}

    def node(name: str) -> fx.Node:
        if name not in nodes:  # t5[0], one of several outputs
            head, _, index = name.partition("[")
            nodes[name] = graph.call_function(operator.getitem, (nodes[head], int(index[:-1])))
        return nodes[name]

    for step in steps:
        args, kwargs = tree_map(lambda x: node(x.text) if isinstance(x, Name) else x, (step.args, step.kwargs))
        nodes[step.output] = graph.call_function(PLAIN.get(step.function, step.function), tuple(args), kwargs)
    graph.output([node(name) for name in outputs])
    return fx.GraphModule(torch.nn.Module(), graph), [tape.constants[name] for name in constants]


def _run(graph: fx.GraphModule, constants: list[Tensor], args: Sequence[Tensor]) -> Program:
    """The compiled graph, given its constants."""
    from torch._inductor import compile as inductor

    program = inductor(graph, list(args))
    return (lambda *given: program(*given, *constants)) if constants else program
