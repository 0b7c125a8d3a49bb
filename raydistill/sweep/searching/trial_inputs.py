"""The inputs that all trials of a sweep share, and their way to the trials' processes.

The driver makes one `TrialInputs` and hands it to Ray's object store, with `tune.with_parameters` for trials and
`ray.put` for the measurement of memory and the final tests. The store keeps one copy on each node. A process that gets
it from there reads the arrays (real data, bank) in the node's shared memory, without a copy of its own.
"""

from dataclasses import dataclass
from typing import Any

import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import merged
from raydistill.config.settings import flat, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.data import Dataset
from raydistill.store.bank import Bank
from raydistill.system.device import pick_device, use_threads
from raydistill.system.gpu_memory import use_gpu_share

DECIDED: Any = {"iterations": True, "data": {"image_size", "channels"}}  # Settings that the budget and the bank decide.


@dataclass(frozen=True)
class TrialInputs:
    """Everything that a trial needs beside its own searched settings."""

    base: dict[str, Any]
    """The settings that are not searched, as a YAML file has them."""
    data: dict[str, Any]
    """The real data, as `Dataset.to_numpy` returns them."""
    bank: dict[str, Any] | None
    """The pretrained networks, as `Bank.to_numpy` returns them; None where the sweep uses none."""
    threads: float
    """How many cores a trial has, or each of its workers; one thread runs on each."""
    gpus: float = 0
    """How many GPUs a trial has, or each of its workers; a fraction is a share of one. 0 until it is measured."""

    @classmethod
    def of_sweep(cls, config: SweepConfig, common: DistillConfig, data: Dataset, bank: Bank | None) -> "TrialInputs":
        """Return the inputs of a sweep's trials, which know no GPU yet.

        Args:
            config: the sweep.
            common: the settings of a trial, without the searched ones, with images as the bank needs them.
            data: the real data.
            bank: the pretrained networks.
        """
        return cls(
            base=merged(DistillConfig, config.base, flat(common.model_dump(include=DECIDED))),
            data=data.to_numpy(),
            bank=bank.to_numpy() if bank is not None else None,
            threads=config.resources.cpu,
        )

    def config_with(self, searched: dict[str, Any], **fixed: Any) -> DistillConfig:
        """Return the config of a trial with these searched settings (dotted names), and others that are fixed."""
        return validated(DistillConfig, merged(DistillConfig, self.base, searched | fixed))

    def begin_process(self, device: str) -> torch.device:
        """Limit this process to its cores and its share of a GPU, and return the device on which it computes.

        Args:
            device: the setting of that name.
        """
        use_threads(self.threads)
        picked = pick_device(device, self.gpus)
        use_gpu_share(self.gpus, picked)
        return picked

    def load_data(self) -> Dataset:
        """Return the real data, whose tensors use the shared memory."""
        return Dataset.from_numpy(self.data)

    def load_bank(self) -> Bank | None:
        """Return the pretrained networks, if there are any, in the shared memory."""
        return Bank.from_numpy(self.bank) if self.bank else None
