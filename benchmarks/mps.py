"""MPS, NVIDIA's service through which several processes compute on one GPU at once."""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

CONTROL = "nvidia-cuda-mps-control"


class Mps:
    """Within it a service of our own runs, with its pipes and logs in a folder of its own; it ends at the end.

    Args:
        device: that processes will use.

    Attributes:
        problem: why there is none; empty where there is one.
        environment: variables by which processes find it.
    """

    def __init__(self, device: torch.device) -> None:
        self.folder = tempfile.mkdtemp(prefix="mps-")
        self.environment = {
            "CUDA_MPS_PIPE_DIRECTORY": f"{self.folder}/pipes",
            "CUDA_MPS_LOG_DIRECTORY": f"{self.folder}/logs",
        }
        self.problem = "no GPU" if device.type != "cuda" else ""
        self.begun = False  # so that it has to be ended

    def __enter__(self) -> "Mps":
        for folder in self.environment.values():
            os.mkdir(folder)
        if not self.problem and shutil.which(CONTROL) is None:
            self.problem = "MPS is not installed"
        if not self.problem:
            self.begun = True
            try:
                code = self._control("-d")
                self.problem = f"MPS did not start: {self._said()}" if code else ""
            except (OSError, subprocess.TimeoutExpired) as error:
                self.problem = f"MPS did not start: {error}"
        return self

    def __exit__(self, *error: object) -> None:
        if self.begun:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._control(orders="quit\n")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *arguments: str, orders: str = "") -> int:
        """Its exit code. What it says goes to a file: the service keeps that open, and a pipe would never end."""
        with open(f"{self.folder}/said", "a") as said:
            return subprocess.run(
                [CONTROL, *arguments],
                input=orders,
                stdout=said,
                stderr=said,
                text=True,
                env=os.environ | self.environment,
                timeout=20,
            ).returncode

    def _said(self) -> str:
        lines = [line.strip() for line in Path(self.folder, "said").read_text().splitlines() if line.strip()]
        return lines[-1] if lines else "no reason given"
