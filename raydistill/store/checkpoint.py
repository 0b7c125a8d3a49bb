"""The whole state of a run on disk, from which it resumes."""

from pathlib import Path
from typing import Any

import torch

from raydistill.system.errors import UserError
from raydistill.system.tensor_file import save_tensors

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write a state of tensors and plain values to a folder; an older one stays until the new one is whole.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(state, folder / CHECKPOINT)


def load_checkpoint(folder: str | Path) -> dict[str, Any]:
    """Read the state that `save_checkpoint` wrote, on the CPU; only tensors and plain values are unpickled.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(folder) / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{folder}: holds no {CHECKPOINT}, so there is no run to resume") from None
    except Exception as error:  # torch.load reports damage in a dozen ways.
        raise UserError(f"{path}: is damaged or not a checkpoint of raydistill") from error
    return state
