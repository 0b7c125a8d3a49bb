"""How many trials fit on a cluster: by the memory that the largest of them was measured to need."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError

from raydistill.bank import Bank
from raydistill.config import DistillConfig
from raydistill.data import Dataset
from raydistill.device import pick_device, use_gpu_share, use_threads
from raydistill.errors import Diverged, UserError
from raydistill.run import Run
from raydistill.sweep_config import Resources, SweepConfig

GIB = 2**30
RESERVE = 1.1  # on what was measured
ITERATIONS = 3  # the first records what the others replay


@dataclass(frozen=True)
class Need:
    """What a process took at its peak, in bytes.

    memory: main memory, with the libraries. gpu: of the GPU, with what CUDA takes for itself. gpu_total: all it has.
    """

    memory: int
    gpu: int = 0
    gpu_total: int = 0


def fitted(config: SweepConfig, shared: dict[str, Any], say: Callable[[str], None] = lambda line: None) -> Resources:
    """The places of a sweep's trials: with `concurrent: auto` measured, otherwise as the user says.

    Ray puts as many trials on a node as their cores, GPU shares and memory allow.

    Args:
        config: the sweep.
        shared: what all trials share, as of `DistillTrial.setup`.
        say: told what was measured and how many fit.

    Raises:
        UserError: the largest trial does not fit on any node, or into its share of a GPU.
    """
    places = config.resources
    if config.budget.concurrent != "auto" and places.gpu != "auto":
        return places
    need = measured(config, shared)
    if places.gpu == "auto":
        places = places.model_copy(update={"gpu": gpu_share(need)})
    if places.memory is None:
        places = places.model_copy(update={"memory": RESERVE * need.memory / GIB})
    workers = config.trial_config({}).workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    trials = sum(room(node, places) for node in nodes) // workers
    largest = max((node.get("memory", 0) for node in nodes), default=0)
    if all(room(node, Resources(cpu=0.001, memory=places.memory)) == 0 for node in nodes):
        raise UserError(
            f"resources.memory={places.memory:.1f}: GiB that the largest trial needs; the largest node gives Ray "
            f"{largest / GIB:.1f}. Search smaller sets, batches or fewer networks"
        )
    gpu = f" and {need.gpu / GIB:.1f} GiB of the GPU" if need.gpu else ""
    say(f"the largest trial takes {need.memory / GIB:.1f} GiB{gpu} (measured); {trials} fit at a time on these nodes")
    return places


def room(node: dict[str, float], places: Resources) -> int:
    """How many trials' places a node has, by whatever it has least of."""
    bundle = places.bundle()
    return min(math.floor(node.get(name, 0.0) / amount + 1e-6) for name, amount in bundle.items())


def gpu_share(need: Need) -> float:
    """The smallest share 1/k of a GPU that holds a trial.

    Raises:
        UserError: there is no GPU, or it is too small.
    """
    if not need.gpu_total:
        raise UserError("resources.gpu=auto: the largest trial was measured on a node without a GPU; say 0 or a number")
    count = math.floor(need.gpu_total / (RESERVE * need.gpu))
    if count == 0:
        raise UserError(
            f"resources.gpu=auto: the largest trial needs {need.gpu / GIB:.1f} GiB of a GPU that has "
            f"{need.gpu_total / GIB:.1f}; search smaller sets, batches or fewer networks"
        )
    return 1 / count


def measured(config: SweepConfig, shared: dict[str, Any]) -> Need:
    """What the largest trials of a sweep need, each in a process of its own on some node.

    Raises:
        UserError: one does not fit into a node's memory.
    """
    places = config.resources
    gpus = 1.0 if places.gpu == "auto" else places.gpu
    task: Any = ray.remote(num_cpus=places.cpu, num_gpus=gpus, max_calls=1, max_retries=0)(peak)
    given = ray.put(shared | {"gpus": gpus})
    needs: list[Need] = []
    for point in largest_points(config):
        try:
            needs.append(ray.get(task.remote(shared["base"] | point, given)))
        except OutOfMemoryError as error:
            raise UserError(f"search: a trial with {point} does not fit into a node's memory") from error
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
    return max(needs, key=lambda need: (need.gpu, need.memory))


def largest_points(config: SweepConfig) -> list[dict[str, Any]]:
    """Where trials need most memory: whole numbers at their upper ends (rates at their lower ones), every network."""
    point = {}
    for name, distribution in config.search.items():
        numbers = all(isinstance(value, (int, float)) for value in distribution.ends)
        whole = all(isinstance(value, int) for value in distribution.ends)
        point[name] = distribution.ends[0] if not numbers else (max if whole else min)(distribution.ends)
    networks = config.search["network"].ends if "network" in config.search else [None]
    return [point | ({"network": network} if network else {}) for network in networks]


def peak(settings: dict[str, Any], shared: dict[str, Any]) -> Need:
    """Begins a trial in this process, a few iterations and a validation, and says what it took at most."""
    use_threads(shared["threads"])
    config = DistillConfig(**settings | {"workers": 1, "iterations": ITERATIONS, "eval_every": ITERATIONS})
    device = pick_device(config.device)
    use_gpu_share(shared["gpus"], device)
    bank = Bank.from_numpy(shared["bank"]) if shared["bank"] else None
    with suppress(Diverged):  # with these rates; it took its memory all the same
        Run(config, Dataset.from_numpy(shared["data"]), bank).advance()
    if device.type != "cuda":
        return Need(peak_memory())
    free, total = torch.cuda.mem_get_info(device)
    context = total - free - torch.cuda.memory_reserved(device)
    return Need(peak_memory(), torch.cuda.max_memory_reserved(device) + context, total)


def peak_memory() -> int:
    """The most main memory this process had, in bytes, without what it shares with the node's others (the data)."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return (int(lines["VmHWM"].split()[0]) - int(lines["RssShmem"].split()[0])) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
