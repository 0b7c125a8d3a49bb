"""What torch computes, written down as a straight-line program."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from raydistill.kernels.conv_relu_pool_kernels import DIRECT

aten = torch.ops.aten

TURNS = (aten.t.default, aten.transpose.int)
RESHAPES = (aten.view.default, aten._unsafe_view.default, aten.expand.default)
PRODUCTS = {aten.mm.default: aten.addmm.default, aten.bmm.default: aten.baddbmm.default}  # a @ b: a + b @ c
CREATION = (aten.zeros, aten.zeros_like, aten.new_zeros, aten.ones, aten.ones_like, aten.full, aten.full_like)
STRIDED = (aten.as_strided, aten.as_strided_copy, aten.as_strided_scatter)

# The same functions by names that cost a microsecond less a call, half of what a small tensor's operation takes.
SHORT_WAYS = DIRECT | {
    aten.add.Tensor: torch.add,
    aten.addmm.default: torch.addmm,
    aten.baddbmm.default: torch.baddbmm,
    aten.bmm.default: torch.bmm,
    aten.cat.default: torch.cat,
    aten.div.Tensor: torch.div,
    aten.div.Scalar: torch.div,
    aten.exp.default: torch.exp,
    aten.expand.default: Tensor.expand,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.neg.default: torch.neg,
    aten.permute.default: torch.permute,
    aten.relu.default: torch.relu,
    aten.split_with_sizes.default: torch.split_with_sizes,
    aten.squeeze.dim: torch.squeeze,
    aten.sub.Tensor: torch.sub,
    aten.sum.default: torch.sum,
    aten.sum.dim_IntList: torch.sum,
    aten.t.default: torch.t,
    aten.transpose.int: torch.transpose,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.view.default: Tensor.reshape,  # a rewritten step may lay out its result otherwise,
    aten._unsafe_view.default: Tensor.reshape,  # and then needs a copy here
}


def layout(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What a program depends on, beside the values."""
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
    """Writes down the operations on the given tensors, and on what comes out of them, that run within it.

    A name is one value. So an operation that writes in place has no place here: `record.py` turns it into others.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        TorchDispatchMode.__init__(self)
        self.steps: list[Step] = []
        self._storages: dict[int, StorageWeakRef] = {}
        self._names = {self._identity(tensor): f"in{i}" for i, tensor in enumerate(inputs)}
        if len(self._names) < len(inputs):
            raise ValueError(
                "two inputs of a recorded function are the same tensor: it could not tell them apart later"
            )
        self._layouts = {f"in{i}": layout([tensor]) for i, tensor in enumerate(inputs)}
        self._seen: dict[str, str] = {}  # what a call computes -> the name it got
        self._steps_by_name: dict[str, Step] = {}
        self._products: set[str] = set()  # are contiguous
        self.constants: dict[str, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False keeps torch from importing its compiler, two seconds, for a mode that never meets it."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.is_mutable:
            raise RuntimeError(f"{function} writes in place")
        if function.overloadpacket in STRIDED:
            raise RuntimeError(f"{function} depends on where numbers lie")
        result = function(*args, **(kwargs or {}))
        if function is aten.lift_fresh.default:  # made of Python numbers
            name = self._constant(result)
        elif not isinstance(result, Tensor | tuple | list):
            raise RuntimeError(f"{function} gives Python numbers, which may differ at the next call")
        else:
            args, kwargs = tree_map(lambda x: Name(self._name(x)) if isinstance(x, Tensor) else x, (args, kwargs or {}))
            name = self._simpler(function, args, result) or self._write(function, args, kwargs, result)
        for i, part in enumerate(result if isinstance(result, tuple | list) else ()):
            if isinstance(part, Tensor):
                self._names[self._identity(part)] = f"{name}[{i}]"
        if isinstance(result, Tensor):
            self._names[self._identity(result)] = name
            self._layouts[name] = layout([result])
        return result

    def _simpler(self, function: Any, args: Any, result: Any) -> str | None:
        """The name of the result, where it is there already or fewer steps lead to it."""
        first = args[0].text if args and isinstance(args[0], Name) else ""
        if function in (aten.detach.default, aten.alias.default):
            return first
        if function in RESHAPES and layout([result]) == self._layouts.get(first):
            return first
        if function is aten.mul.Scalar and args[1] == 1 and layout([result]) == self._layouts.get(first):
            return first
        if function is aten.clone.default and result.is_contiguous() and first in self._products:
            return first  # a copy to make it contiguous
        if function in TURNS:
            return self._simpler_turn(first, (function, args[1:]), result)
        if function is aten.add.Tensor and len(args) == 2 and isinstance(args[1], Name):
            return self._simpler_sum(first, args[1].text, result)
        if function is aten.mm.default and self._is_long_and_flat(first, result):
            zero = self._constant(result.new_zeros(result.shape[1]))
            return self._write(aten.addmm.default, (Name(zero), *args), {}, result)
        return None

    def _is_long_and_flat(self, left: str, result: Tensor) -> bool:
        """Few rows, each of them a long sum: for it cuBLAS takes 52 us on an H200, where with a bias it takes 4."""
        known = self._layouts.get(left)
        return result.is_cuda and len(result) <= 64 and known is not None and known[0][0][1] >= 256

    def _simpler_turn(self, name: str, turn: Any, result: Tensor | None = None) -> str | None:
        """t(t(a)) = a, t(t(a) @ b) = t(b) @ a, and t(a + t(b)) = t(a) + b: fewer copies, and the faster products."""
        step = self._steps_by_name.get(name)
        if step is None:
            return None
        if self._is_turned(name, turn):
            return str(step.args[0].text)
        if step.function in PRODUCTS and any(self._is_turned(factor.text, turn) for factor in step.args):
            left, right = (Name(self._turn(factor.text, turn)) for factor in reversed(step.args))
            return self._write(step.function, (left, right), {}, None if result is None else result.contiguous())
        if step.function is aten.add.Tensor and result is not None and any(isinstance(x, Name) for x in step.args[1:]):
            parts = [self._simpler_turn(part.text, turn) for part in step.args]
            if all(parts):
                a, b = (str(part) for part in parts)
                total = result.contiguous()
                return self._simpler_sum(a, b, total) or self._write(aten.add.Tensor, (Name(a), Name(b)), {}, total)
        return None

    def _turn(self, name: str, turn: Any) -> str:
        """The name of its transpose."""
        return self._simpler_turn(name, turn) or self._write(turn[0], (Name(name), *turn[1]), {}, None)

    def _is_turned(self, name: str, turn: Any) -> bool:
        step = self._steps_by_name.get(name)
        return step is not None and (step.function, step.args[1:]) == turn

    def _simpler_sum(self, a: str, b: str, result: Tensor) -> str | None:
        """a + 0 = a, and a + b @ c in one step."""
        for zero, other in ((a, b), (b, a)):
            known = self._layouts.get(other) == layout([result])
            if zero in self.constants and known and not self.constants[zero].any():
                return other
        for product, other in ((a, b), (b, a)):
            for multiply, multiply_and_add in PRODUCTS.items():
                if result.is_contiguous() and (factors := self._made_by(product, multiply)):
                    return self._write(multiply_and_add, (Name(other), *factors), {}, result)
        return None

    def _made_by(self, name: str, function: Any) -> Any:
        """The arguments of the call of `function` that computed it, if one did."""
        step = self._steps_by_name.get(name)
        return step.args if step is not None and step.function is function else None

    def _write(self, function: Any, args: Any, kwargs: Any, result: Any) -> str:
        """Adds a step, unless the same was computed before or the result is the same each time.

        The result is for its layout; None where that is not known.
        """
        key = repr((function, args, kwargs))
        if key in self._seen:
            return self._seen[key]
        inputs = tuple(whole(x.text) for x in tree_flatten((args, kwargs))[0] if isinstance(x, Name))
        fixed = function.overloadpacket in CREATION or (inputs and all(name in self.constants for name in inputs))
        if fixed and isinstance(result, Tensor):
            name = self._constant(result)
        else:
            name = f"t{len(self.steps)}"
            self.steps.append(Step(name, function, args, kwargs, inputs))
            self._steps_by_name[name] = self.steps[-1]
        self._seen[key] = name
        if function in PRODUCTS or function in PRODUCTS.values():
            self._products.add(name)
        if isinstance(result, Tensor):
            self._layouts[name] = layout([result])
        return name

    def _constant(self, value: Tensor) -> str:
        """The name of what is the same at each call."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value.clone()
        return name

    def _name(self, tensor: Tensor) -> str:
        identity = self._identity(tensor)
        if identity not in self._names:
            raise RuntimeError(f"a tensor of shape {tuple(tensor.shape)} comes from outside the recorded function")
        return self._names[identity]

    def _identity(self, tensor: Tensor) -> Any:
        """What tells a tensor from all others, though autograd wraps it anew: where its numbers lie, and how.

        A weak reference keeps the number of a storage that is gone from being given to another.
        """
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = StorageWeakRef(storage)
        return storage._cdata, tensor.storage_offset(), tensor.is_conj(), tensor.is_neg(), layout([tensor])

    def names(self, tensors: Sequence[Tensor]) -> list[str]:
        """What the tensors are called."""
        return [self._name(tensor) for tensor in tensors]

    def needed(self, outputs: Collection[str], given: Collection[str] = ()) -> list[Step]:
        """The steps, in order, that lead from what is given to the outputs."""
        wanted = {whole(name) for name in outputs}
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
        kept = {whole(name) for name in outputs} | self.constants.keys()
        scope: dict[str, Any] = {name: self.constants[name] for name in {*last_use, *outputs} & self.constants.keys()}
        lines = [f"def program({', '.join(inputs)}):"]
        for i, step in enumerate(steps):
            scope[f"f{i}"] = SHORT_WAYS.get(step.function, step.function)
            args = [_source(x, scope) for x in step.args] + [f"{k}={_source(x, scope)}" for k, x in step.kwargs.items()]
            lines.append(f"    {step.output} = f{i}({', '.join(args)})")
            done = sorted(name for name in set(step.inputs) - kept if last_use[name] is step)
            lines += [f"    del {', '.join(done)}"] if done else []
        lines.append(f"    return [{', '.join(outputs)}]")
        exec("\n".join(lines), scope)
        program: Callable[..., Any] = scope["program"]
        return program


def whole(name: str) -> str:
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
    name = f"k{len(scope)}"
    scope[name] = value
    return name
