"""A program is what torch computes in one call of a function: a list of operations on named tensors, without branches.

`trace.py` makes programs, `passes.py` makes them shorter, and `codegen.py` and `compile.py` make functions of them.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map


class Name(str):
    """A tensor's name: in0 of an input, c0 of a constant, t0 of an operation's result, t0[1] of one of its results."""

    __slots__ = ()

    @property
    def whole(self) -> "Name":
        """The name without the index: t0 of t0[1]."""
        return Name(self.partition("[")[0])

    @property
    def part(self) -> str:
        """The index with its brackets: [1] of t0[1]; empty where there is none."""
        return self[len(self.whole) :]


class Layout(NamedTuple):
    """Everything of a tensor but its values and its place in memory."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        """Return the layout of a tensor."""
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def empty(self, device: torch.device | str | None = None) -> Tensor:
        """Return a tensor of this layout whose values mean nothing; on the meta device it has no memory."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device or self.device)

    @property
    def is_contiguous(self) -> bool:
        """Whether the values lie in memory row by row, without gaps."""
        return self.empty("meta").is_contiguous()

    def contiguous(self) -> "Layout":
        """Return the layout of a contiguous copy."""
        return self._replace(stride=torch.empty(self.shape, device="meta").stride())


@dataclass(frozen=True)
class Operation:
    """output = function(*args, **kwargs), with a Name in the place of each tensor."""

    output: Name
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def inputs(self) -> tuple[Name, ...]:
        """The names that it uses, without indices."""
        return tuple(x.whole for x in tree_flatten((self.args, self.kwargs))[0] if isinstance(x, Name))

    @property
    def text(self) -> str:
        """The call as text, the same for two operations that compute the same."""
        return repr((self.function, self.args, self.kwargs))

    def renamed(self, names: Callable[[Name], Any]) -> "Operation":
        """Return the same operation with another value in the place of each name."""
        args, kwargs = tree_map(lambda x: names(x) if isinstance(x, Name) else x, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)


@dataclass(frozen=True)
class Program:
    """Operations in the order in which they run; each name gets its value once.

    Args:
        inputs: what the program is given.
        operations: what it does.
        outputs: what it returns.
        constants: tensors that are the same at each call.
        layouts: the layouts of inputs, constants and results as they were traced. A pass may let an operation give the
            same values with other strides.
    """

    inputs: tuple[Name, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Name, ...]
    constants: Mapping[Name, Tensor]
    layouts: Mapping[Name, Layout]


class Rewriting:
    """A program that is being written anew, operation by operation.

    A pass calls `rewrite` with a rule, which sees each operation, with the names of its arguments already replaced, and
    returns the name of a tensor that is equal to its result, or None to keep the operation.
    """

    def __init__(self, program: Program) -> None:
        self.constants = dict(program.constants)
        self.layouts = dict(program.layouts)
        self.operations: dict[Name, Operation] = {}
        self._taken = {operation.output for operation in program.operations} | self.constants.keys()

    def operation(self, name: Any, functions: Iterable[Any]) -> Operation | None:
        """Return the operation whose result is called `name`, if it is one of these functions."""
        operation = self.operations.get(name) if isinstance(name, Name) else None
        return operation if operation is not None and operation.function in functions else None

    def write(self, function: Any, args: tuple[Any, ...], layout: Layout) -> Name:
        """Add an operation and return the name of its result, which has this layout."""
        name = self._new_name("t")
        self.operations[name] = Operation(name, function, args, {})
        self.layouts[name] = layout
        return name

    def constant(self, value: Tensor) -> Name:
        """Add a constant and return its name."""
        name = self._new_name("c")
        self.constants[name] = value
        self.layouts[name] = Layout.of(value)
        return name

    def _new_name(self, letter: str) -> Name:
        """Return a name that no tensor has had."""
        numbers = itertools.count(len(self._taken))
        name = next(name for i in numbers if (name := Name(f"{letter}{i}")) not in self._taken)
        self._taken.add(name)
        return name


Rule = Callable[[Operation, Rewriting], Name | None]


def rewrite(program: Program, rule: Rule) -> Program:
    """Return the program with each operation left out whose result the rule finds, or computes, under another name."""
    written = Rewriting(program)
    found: dict[Name, Name] = {}

    def new_name(name: Name) -> Name:
        return Name(found[name.whole] + name.part) if name.whole in found else name

    for operation in program.operations:
        operation = operation.renamed(new_name)
        other = rule(operation, written)
        if other is None:
            written.operations[operation.output] = operation
        else:
            found[operation.output] = other
    outputs = tuple(map(new_name, program.outputs))
    return Program(program.inputs, tuple(written.operations.values()), outputs, written.constants, written.layouts)
