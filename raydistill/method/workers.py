"""Several processes that learn the same sets, each with a share of the networks (torch.distributed).

One process leads: it decides when a step is taken, validates, and keeps checkpoints. The others follow: they wait for
its next command and execute it. All hold the same sets and random generators, and draw the same networks and real
images; each trains only its share of the networks, and the hypergradients are averaged. So all of them stay equal, bit
for bit.
"""

from datetime import timedelta
from socket import socket
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from raydistill.system.errors import Lost, UserError

LONGEST_PAUSE = timedelta(hours=6)  # A follower waits so long for a command: the leader may validate.
LONGEST_STEP = timedelta(minutes=30)  # The leader waits so long for the others: a GPU may have a long queue.
MEETING = timedelta(minutes=5)  # All workers must join in this time.


class Learner(Protocol):
    """What a follower's process does on command: a Distiller."""

    def step(self) -> Tensor:
        """Take a step."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        ...


class Workers:
    """The place of this process among the workers of a run; a process takes part in one run at a time.

    Args:
        rank: the number of this process; 0 leads.
        count: how many there are.
        host, port: where the leader listens.
        device: that this process computes on.
        listener: the leader's socket there; torch's own would listen on every address of this machine.

    Raises:
        UserError: the others did not come.
    """

    STEP, LOAD, END = range(3)  # These are the commands of the leader.

    def __init__(
        self, rank: int, count: int, host: str, port: int, device: torch.device, listener: socket | None = None
    ) -> None:
        self.rank, self.count, self.device = rank, count, device
        self.complete = True  # It is false once a worker is known to be lost.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            own = listener.detach() if listener else None
            store = TCPStore(host, port, count, is_master=rank == 0, timeout=MEETING, master_listen_fd=own)
            patience = LONGEST_PAUSE if rank else LONGEST_STEP
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=patience)
        except (RuntimeError, dist.DistError) as error:
            raise UserError(f"workers={count}: they did not find each other ({_first_line(error)})") from error

    def share(self, weights: Tensor, dim: int) -> Tensor:
        """Return the part of a tensor for this process: one of `count` equal parts along `dim`."""
        return weights.chunk(self.count, dim)[self.rank]

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all workers, the same numbers in each; waits for all of them.

        Raises:
            Lost: one of them is.
        """
        total = values.clone()
        try:
            dist.all_reduce(total)
        except (RuntimeError, dist.DistError) as error:
            raise self._lost(error) from error
        return total / self.count

    def order(self, what: int, state: Any = None) -> None:
        """Send the others the command to take a step, to load a Distiller's state, or to end.

        Raises:
            Lost: one of them is.
        """
        try:
            dist.broadcast(torch.tensor([what]), 0)
            if what == self.LOAD:
                dist.broadcast_object_list([state], 0)  # Pickle is safe between processes that we started.
        except (RuntimeError, dist.DistError) as error:
            raise self._lost(error) from error

    def follow(self, distiller: Learner) -> None:
        """Execute the leader's commands, until the end or until it is lost."""
        what = torch.empty(1, dtype=torch.int64)
        while True:
            dist.broadcast(what, 0)
            if what == self.END:
                return
            if what == self.LOAD:
                state: list[Any] = [None]
                dist.broadcast_object_list(state, 0)
                distiller.load_state_dict(state[0])
            else:
                distiller.step()

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()

    def _lost(self, error: Exception) -> Lost:
        self.complete = False
        return Lost(
            f"workers={self.count}: one of them was lost ({_first_line(error)}); resume from the last checkpoint with "
            "--resume"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
