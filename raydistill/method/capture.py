"""CUDA graphs: a whole outer iteration launched at once.

An iteration on small networks is thousands of kernels of a few microseconds; launched one by one, the GPU waits for
the CPU. A graph holds them all. On a CPU there is nothing to launch, and the function is left as it is.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # calls that run as usual: they record, choose kernels and allocate, which a graph cannot hold


def captured(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """`function` of tensors of fixed shapes, from the fourth call on as a CUDA graph where the device is one.

    It may change tensors that it knows in place; it must not wait for the device or draw random numbers.
    """
    return _Graph(function) if device.type == "cuda" else function


class _Graph:
    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._on_a_side_stream(inputs)
        if self.graph is None:
            self._capture(inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        assert self.graph is not None
        self.graph.replay()
        return self.output.clone()

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        """Writes the function's kernels into a graph; none of them runs yet."""
        self.inputs = [t.clone() for t in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = self.function(*self.inputs)

    def _on_a_side_stream(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Where capture will take place; what is set up on the default stream does not count there."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            output = self.function(*inputs)
        current.wait_stream(stream)
        output.record_stream(current)
        return output
