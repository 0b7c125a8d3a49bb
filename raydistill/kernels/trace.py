"""Tracing: which operations torch runs when a function is called, as a program.

The operations are those below autograd and vmap, so the program of a gradient is as flat as that of any other function.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._utils import _functionalize_sync
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map

from raydistill.kernels.program import Layout, Name, Operation, Program
from raydistill.system.errors import UserError

aten = torch.ops.aten

STRIDED = (aten.as_strided, aten.as_strided_copy, aten.as_strided_scatter)
WRITES_TO_INPUTS = "the network writes in place to its weights or images, which others use too: let it write to a copy"


def trace(function: Callable[..., Any], args: Sequence[Tensor]) -> tuple[Program, TreeSpec]:
    """Call the function and return what ran, and the tree that the program's outputs are the leaves of.

    Before the operations reach the tracer, torch turns those that write in place into operations that return new
    tensors, and views of them, as `torch.func.functionalize` does.

    Raises:
        UserError: the function writes to its arguments.
        RuntimeError: another call could compute something else, so no program stands for the function.
    """
    tracer = Tracer(args)
    torch._enable_functionalization(reapply_views=True)
    try:
        with tracer:
            given = [torch._to_functional_tensor(arg) for arg in args]
            outputs, tree = tree_flatten(function(*given))
            outputs, after = ([_plain(tensor) for tensor in tensors] for tensors in (outputs, given))
    finally:
        torch._disable_functionalization()
    if tracer.program(after).outputs != tracer.program(args).outputs:
        raise UserError(WRITES_TO_INPUTS)
    return tracer.program(outputs), tree


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor inside one that keeps account of writes, after all of them."""
    if not torch._is_functional_tensor(tensor):
        return tensor
    _functionalize_sync(tensor)
    return torch._from_functional_tensor(tensor)


class Tracer(TorchDispatchMode):
    """A context that writes down each operation on the inputs and on what comes out of them.

    Args:
        inputs: the tensors that a program is given; another tensor from outside is an error.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        TorchDispatchMode.__init__(self)
        self._operations: list[Operation] = []
        self._constants: dict[Name, Tensor] = {}
        self._layouts: dict[Name, Layout] = {}
        self._storages: dict[int, StorageWeakRef] = {}
        self._names: dict[Any, Name] = {}
        self._inputs = tuple(Name(f"in{i}") for i in range(len(inputs)))
        for name, tensor in zip(self._inputs, inputs, strict=True):
            self._call(tensor, name)
        if len(self._names) < len(inputs):
            raise ValueError(
                "two inputs of a recorded function are the same tensor: it could not tell them apart later"
            )

    def program(self, outputs: Sequence[Tensor]) -> Program:
        """Return what ran so far as the program that computes these tensors."""
        names = tuple(self._name(tensor) for tensor in outputs)
        return Program(self._inputs, tuple(self._operations), names, self._constants, self._layouts)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, which keeps torch from importing its compiler, two seconds, for a mode that never meets it."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function._schema.is_mutable:
            raise RuntimeError(f"{function} writes in place")
        if function.overloadpacket in STRIDED:
            raise RuntimeError(f"{function} depends on where numbers lie")
        result = function(*args, **kwargs)
        if function is aten.lift_fresh.default:  # Its result is made of Python numbers.
            self._constants[self._call(result, Name(f"c{len(self._constants)}"))] = result.clone()
        elif isinstance(result, Tensor | tuple | list):
            self._record(function, args, kwargs, result)
        else:
            raise RuntimeError(f"{function} gives Python numbers, which may differ at the next call")
        return result

    def _record(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Write the operation down, unless its result is a tensor that has a name: one detached, or seen as it is."""
        args, kwargs = tree_map(lambda x: self._name(x) if isinstance(x, Tensor) else x, (args, kwargs))
        if isinstance(result, Tensor) and self._identity(result) in self._names:
            return
        name = Name(f"t{len(self._operations)}")
        self._operations.append(Operation(name, function, tuple(args), kwargs))
        parts = {name: result} if isinstance(result, Tensor) else {f"{name}[{i}]": x for i, x in enumerate(result)}
        for text, part in parts.items():
            if isinstance(part, Tensor):
                self._call(part, Name(text))

    def _call(self, tensor: Tensor, name: Name) -> Name:
        """Give the tensor a name, unless it has one; return the name that it has."""
        self._layouts[name] = Layout.of(tensor)
        return self._names.setdefault(self._identity(tensor), name)

    def _name(self, tensor: Tensor) -> Name:
        identity = self._identity(tensor)
        if identity not in self._names:
            raise RuntimeError(f"a tensor of shape {tuple(tensor.shape)} comes from outside the recorded function")
        return self._names[identity]

    def _identity(self, tensor: Tensor) -> Any:
        """Return what tells a tensor from all others, though autograd wraps it anew: its place in memory and layout.

        A weak reference keeps the number of a storage that is gone from being given to another.
        """
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = StorageWeakRef(storage)
        return storage._cdata, tensor.storage_offset(), tensor.is_conj(), tensor.is_neg(), Layout.of(tensor)
