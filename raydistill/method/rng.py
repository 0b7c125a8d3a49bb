"""Random generators with a name each, so that no draw depends on what else was drawn."""

import hashlib

import torch


def named_generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose stream depends on (seed, name) alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))
