"""Real images as bytes, a quarter of the memory of float32; an index gives normalised values."""

from collections.abc import Iterator

import torch
from torch import Tensor

Index = Tensor | slice | int
"""Numbers, in any shape and from 0, or a mask [M]; some in a row; one."""


class Pixels:
    """Images [M, C, H, W], indexed like the float32 tensor of their normalised values, which never exists as a whole.

    The values are `(level / 255 - mean) / std` as a CPU computes it, to the last bit, wherever the levels are.

    Args:
        levels: uint8 [M, C, H, W]; they are never written to.
        mean: of each channel [C], in units of 0..1, on the CPU.
        std: likewise.
    """

    def __init__(self, levels: Tensor, mean: Tensor, std: Tensor) -> None:
        self.levels, self.mean, self.std = levels, mean, std
        channels = len(mean)
        every_level = torch.arange(256, dtype=torch.uint8).repeat(channels, 1, 1)
        self._values = self._computed(every_level).flatten().to(levels.device)
        self._offsets = torch.arange(0, 256 * channels, 256, device=levels.device).view(channels, 1, 1)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def shape(self) -> torch.Size:
        """M, C, H, W."""
        return self.levels.shape

    @property
    def device(self) -> torch.device:
        """Device of the levels, and of the values at an index."""
        return self.levels.device

    def to(self, device: torch.device) -> "Pixels":
        """Return the same images on another device."""
        return Pixels(self.levels.to(device), self.mean, self.std)

    def at(self, index: Index) -> "Pixels":
        """Return the images at an index, still as bytes."""
        return Pixels(self._levels_at(index), self.mean, self.std)

    def __getitem__(self, index: Index) -> Tensor:
        levels = self._levels_at(index)
        return self._computed(levels) if levels.device.type == "cpu" else self.looked_up(levels)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield all images, normalised, `size` at a time."""
        return (self[start : start + size] for start in range(0, max(1, len(self)), size))

    def looked_up(self, levels: Tensor) -> Tensor:
        """Return normalised values of levels [..., C, H, W] from a table, which the CPU made.

        Other devices divide in other ways (CUDA multiplies by 1/255), and have more kernels to launch for it.
        """
        return self._values[levels + self._offsets]

    def _computed(self, levels: Tensor) -> Tensor:
        """Compute the same without a table: on a CPU as fast for one channel, twice as fast for three."""
        return levels.float().div_(255).sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    def _levels_at(self, index: Index) -> Tensor:
        if not isinstance(index, Tensor) or index.dtype == torch.bool or not self.levels.is_contiguous():
            return self.levels[index]  # Only this keeps the order of the dimensions in memory.
        chosen = self.levels.index_select(0, index.flatten())  # On a CPU it is ten times as fast as an index.
        return chosen.view(*index.shape, *self.shape[1:])
