"""CUDA graphs launch a whole outer iteration at once.

An iteration on small networks is thousands of kernels of a few microseconds; launched one by one, the GPU waits for
the CPU. A graph holds them all. On a CPU there is nothing to launch, and the function is called as it is.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # Calls without a graph trace, choose kernels and allocate, which a graph cannot contain.


class Capture:
    """A caller of a function of tensors of fixed shapes: on a GPU, as a CUDA graph from the fourth call on.

    The function may change tensors that it knows in place; it must not wait for the device or draw random numbers. It
    is an argument of each call and not kept: its owner holds this object, and a reference back would keep the graph's
    memory after both are out of use.

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
        """Return function(*inputs); the function must be the same at each call."""
        if self.device.type != "cuda":
            return function(*inputs)
        inputs = tuple(given.contiguous() for given in inputs)  # The graph reads contiguous tensors.
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
        """Return a graph of the function's kernels, none of which has run yet."""
        self.inputs = [given.clone() for given in inputs]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=_side_stream(self.device)):
            self.output = function(*self.inputs)
        return graph

    def _on_the_side(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """Call the function on the stream of the capture: what is set up on the default stream does not count there."""
        stream, current = _side_stream(self.device), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            output = function(*inputs)
        current.wait_stream(stream)
        output.record_stream(current)
        return output


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for the whole process: torch and cuBLAS keep memory for each stream that they ever used."""
    return torch.cuda.Stream(device)
