"""Several workers for one distillation: this process leads, and Ray actors follow."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from raydistill.cluster.worker_group import WorkerGroup, stay_on_rays_network, worker_group
from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset
from raydistill.evaluation.problem import Problem
from raydistill.method.workers import Workers
from raydistill.store.bank import Bank
from raydistill.system.device import pick_device, use_threads
from raydistill.system.errors import Lost


@contextmanager
def team(
    config: DistillConfig, data: Dataset, bank: Bank | None = None, cpus: float = 1, gpus: float = 0
) -> Iterator[Workers | None]:
    """Begin the workers that follow this process, as many as the settings say; None where it works alone.

    Args:
        config: the settings of the run.
        data: the real data, which each node gets once.
        bank: the pretrained networks, likewise.
        cpus: cores of each follower.
        gpus: GPUs of each follower, and of this process.

    Raises:
        UserError: there are no places for them, or they cannot begin.
    """
    if config.workers == 1:
        yield None
        return
    arguments = config, data.to_numpy(), bank and bank.to_numpy()
    with worker_group(Follower, arguments, config.workers, config.device, cpus, gpus) as group:
        yield from _led(group, config.workers)


def _led(group: WorkerGroup, count: int) -> Iterator[Workers]:
    """Let the actors of a group follow this process, until the end or until one of them is lost."""
    host = stay_on_rays_network()
    listener = socket.create_server((host, 0))
    port = int(listener.getsockname()[1])
    for rank, follower in enumerate(group.actors, 1):
        follower.follow.remote(rank, host, port)
    workers = Workers(0, count, host, port, group.device, listener)
    try:
        yield workers
    finally:
        if workers.complete:  # With one of them lost, the order might wait for it for hours.
            with suppress(Lost):
                workers.order(Workers.END)
        workers.close()


class Follower:
    """A process with the same sets as the leader, that trains its share of the networks.

    Args:
        config: the settings.
        data: the real data, as of `Dataset.to_numpy`.
        bank: the pretrained networks, as of `Bank.to_numpy`.
        threads: for torch.
        gpus: that Ray granted it.
    """

    def __init__(
        self,
        config: DistillConfig,
        data: dict[str, Any],
        bank: dict[str, Any] | None = None,
        threads: float = 1,
        gpus: float = 0,
    ) -> None:
        use_threads(threads)
        device = pick_device(config.device, gpus)
        self.problem = Problem.of(config, Dataset.from_numpy(data), Bank.from_numpy(bank) if bank else None, device)

    def ready(self) -> bool:
        """Answer as soon as the problem is there."""
        return True

    def follow(self, rank: int, host: str, port: int) -> None:
        """Join the leader and obey it until it ends."""
        stay_on_rays_network()
        workers = Workers(rank, self.problem.config.workers, host, port, self.problem.device)
        workers.follow(self.problem.distiller(workers))
