"""Data of any shape, made up."""

import torch

from raydistill.data import Dataset, Split
from raydistill.method.rng import named_generator


def made_up_data(shape: tuple[int, int, int], device: torch.device, count: int = 128) -> Dataset:
    """A pattern for each of four classes, under noise."""
    generator = named_generator(0, "noise")
    patterns = torch.randn(4, *shape, generator=generator)
    splits = []
    for _ in range(3):
        labels = torch.arange(count) % 4
        images = patterns[labels] + torch.randn(count, *shape, generator=generator)
        splits.append(Split(images, labels))
    moments = torch.zeros(shape[0]), torch.ones(shape[0])
    return Dataset("made up", ("a", "b", "c", "d"), *moments, "0" * 64, *splits).to(device)
