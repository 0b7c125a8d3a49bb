"""Recorded functions: what torch computed the first time, replayed without what it took to find out.

`torch.func` differentiates and batches by wrapping tensors, level upon level, at each call; for networks as small as
those of this field that takes longer than the arithmetic. But the operations that come out are the same every time. So
the first call writes them down, as a straight-line program, and later calls run just that. It is also all that a CUDA
graph can hold.

The functions must be pure: tensors in, tensors out, nothing written in place, no branch that depends on values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors, recorded at the first call for each set of shapes."""
    programs: dict[Any, Callable[..., Any]] = {}

    def call(*args: Tensor) -> Any:
        key = _layout(args)
        if key not in programs:
            tape = Tape(args)
            with tape:
                outputs, tree = tree_flatten(function(*args))
            program = tape.program(tape.names(args), tape.names(outputs))
            programs[key] = lambda *again: tree.unflatten(program(*again))
        return programs[key](*args)

    return torch.no_grad()(call)


def recorded_vjp(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Callable[[Tensor], Any]]]:
    """`lambda *args: torch.func.vjp(function, *args)`, both halves recorded at the first call for each set of shapes."""
    halves: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {}

    def call(*args: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
        key = _layout(args)
        if key not in halves:
            halves[key] = _record_halves(function, args)
        forward, backward = halves[key]
        output, *saved = forward(*args)
        return output, lambda cotangent: backward(cotangent, *saved)

    return torch.no_grad()(call)


def _record_halves(function: Callable[..., Tensor], args: Sequence[Tensor]) -> Any:
    cotangent = torch.zeros_like(function(*args))
    tape = Tape([*args, cotangent])
    with tape:
        output, pull = vjp(function, *args)
        gradients = pull(cotangent)
    (result,), wanted, inputs = tape.names([output]), tape.names(gradients), tape.names(args)
    first = {step.output for step in tape.needed([result])} | set(inputs)
    second = tape.needed(wanted, first)
    saved = sorted(first & ({name for step in second for name in step.inputs} | {_whole(name) for name in wanted}))
    return tape.program(inputs, [result, *saved]), tape.program([*tape.names([cotangent]), *saved], wanted)


def _layout(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors)


@dataclass(frozen=True)
class Name:
    """Stands for a tensor in a recorded call."""

    text: str


@dataclass(frozen=True)
class Step:
    """output = function(*args, **kwargs), with names in place of tensors."""

    output: str
    function: Any
    args: Any
    kwargs: Any
    inputs: tuple[str, ...]


class Tape(TorchDispatchMode):
    """Writes down the operations on the given tensors, and on what comes out of them, that run within it."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._alive: list[Any] = list(inputs)  # what is gone could leave its id to another
        self._names = {id(tensor): f"in{i}" for i, tensor in enumerate(inputs)}
        self._seen: dict[Any, str] = {}  # what a call computes -> the name it got

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function._schema.is_mutable:
            raise NotImplementedError(f"{function} writes in place, so it cannot be recorded")
        self._alive.append(result)
        name = self._shortcut(function, args, result) or self._write(function, args, kwargs or {})
        if isinstance(result, Tensor):
            self._names[id(result)] = name
        for i, part in enumerate(result if isinstance(result, tuple | list) else ()):
            if isinstance(part, Tensor):
                self._names[id(part)] = f"{name}[{i}]"
        return result

    def _shortcut(self, function: Any, args: Any, result: Any) -> str | None:
        """The name of what is there already, for an operation that changes nothing."""
        if function in (aten.detach.default, aten.alias.default, aten.lift_fresh.default):
            return self._name(args[0])
        same = function in (aten.view.default, aten.expand.default, aten.permute.default)
        if same and _layout([result]) == _layout(args[:1]) and args[1] == list(result.shape):
            return self._name(args[0])
        return None

    def _write(self, function: Any, args: Any, kwargs: Any) -> str:
        args, kwargs = tree_map(lambda x: Name(self._name(x)) if isinstance(x, Tensor) else x, (tuple(args), kwargs))
        key = repr((function, args, kwargs))
        if key not in self._seen:
            inputs = tuple(_whole(x.text) for x in tree_flatten((args, kwargs))[0] if isinstance(x, Name))
            self._seen[key] = f"t{len(self.steps)}"
            self.steps.append(Step(self._seen[key], function, args, kwargs, inputs))
        return self._seen[key]

    def _name(self, tensor: Tensor) -> str:
        if id(tensor) not in self._names:
            raise NotImplementedError(f"a tensor of shape {tuple(tensor.shape)} comes from outside the recorded function")
        return self._names[id(tensor)]

    def names(self, tensors: Sequence[Tensor]) -> list[str]:
        """What the tensors are called."""
        return [self._name(tensor) for tensor in tensors]

    def needed(self, outputs: Sequence[str], given: Sequence[str] = ()) -> list[Step]:
        """The steps, in order, that lead from what is given to the outputs."""
        wanted = {_whole(name) for name in outputs}
        steps = []
        for step in reversed(self.steps):
            if step.output in wanted and step.output not in given:
                steps.append(step)
                wanted.update(step.inputs)
        return steps[::-1]

    def program(self, inputs: Sequence[str], outputs: Sequence[str]) -> Callable[..., Any]:
        """The function from inputs to outputs as a line of Python for each step; frees what it needs no more."""
        steps = self.needed(outputs, inputs)
        last_use = {name: step for step in steps for name in step.inputs}
        kept = {_whole(name) for name in outputs}
        scope: dict[str, Any] = {}
        lines = [f"def program({', '.join(inputs)}):"]
        for i, step in enumerate(steps):
            scope[f"f{i}"] = step.function
            args = [_source(x, scope) for x in step.args] + [f"{k}={_source(x, scope)}" for k, x in step.kwargs.items()]
            lines.append(f"    {step.output} = f{i}({', '.join(args)})")
            done = sorted(name for name in set(step.inputs) - kept if last_use[name] is step)
            lines += [f"    del {', '.join(done)}"] if done else []
        lines.append(f"    return [{', '.join(outputs)}]")
        exec("\n".join(lines), scope)
        program: Callable[..., Any] = scope["program"]
        return program


def _whole(name: str) -> str:
    """t5 for t5[0], one of its several outputs."""
    return name.partition("[")[0]


def _source(value: Any, scope: dict[str, Any]) -> str:
    """The argument as Python; what has no literal goes into the scope."""
    if isinstance(value, Name):
        return value.text
    if isinstance(value, list | tuple):
        return f"[{', '.join(_source(x, scope) for x in value)}]"
    if value is None or isinstance(value, bool | int):
        return repr(value)
    name = f"c{len(scope)}"
    scope[name] = value
    return name
