"""CUDA graphs: a whole outer iteration launched at once.

An iteration on small networks is thousands of kernels of a few microseconds; launched one by one, the GPU waits for
the CPU. A graph holds them all. On a CPU there is nothing to launch, and the function is called as it is.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # calls that run as usual: they record, choose kernels and allocate, which a graph cannot hold


class Capture:
    """Calls a function of tensors of fixed shapes, from the fourth time on as a CUDA graph where the device is one.

    The function may change tensors that it knows in place; it must not wait for the device or draw random numbers. It
    is given with each call and not kept: what it belongs to holds this object, and a circle of the two would keep the
    graph's memory after both are out of use.

    Args:
        device: where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output = torch.empty(0)

    def __call__(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """function(*inputs); always the same function."""
        if self.device.type != "cuda":
            return function(*inputs)
        inputs = tuple(given.contiguous() for given in inputs)  # as those that the graph reads
        with torch.cuda.device(self.device):
            self.calls += 1
            if self.calls <= WARM_UP:
                return self._on_the_side(function, inputs)
            if self.graph is None:
                self.graph = self._captured(function, inputs)
            for mine, given in zip(self.inputs, inputs, strict=True):
                mine.copy_(given)
            self.graph.replay()
            return self.output.clone()

    def _captured(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """A graph of the function's kernels; none of them has run yet."""
        self.inputs = [given.clone() for given in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=_side_stream(self.device)):
            self.output = function(*self.inputs)
        return graph

    def _on_the_side(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """Where capture will take place; what is set up on the default stream does not count there."""
        stream, current = _side_stream(self.device), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            output = function(*inputs)
        current.wait_stream(stream)
        output.record_stream(current)
        return output


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for the whole process: torch and cuBLAS keep memory for each stream that they ever met."""
    return torch.cuda.Stream(device)
