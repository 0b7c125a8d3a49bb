"""What the largest trial of a sweep takes of memory: it is begun once, in a process of its own."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import merged
from raydistill.config.sweep_config import SweepConfig
from raydistill.data import Dataset
from raydistill.evaluation.accuracy import TEST_IMAGES, TRAIN_CHUNK, evaluate_networks, evaluate_set
from raydistill.evaluation.baselines import DRAWS
from raydistill.kernels.cuda_graph import WARM_UP
from raydistill.runs.run import Run
from raydistill.store.bank import Bank
from raydistill.sweep.error_reasons import explain
from raydistill.system.device import pick_device, use_threads
from raydistill.system.errors import Diverged, UserError
from raydistill.system.gpu_memory import enough_gpu_memory, peak_gpu_memory, use_gpu_share

ITERATIONS = WARM_UP + 2  # on a GPU the last ones are replays of a captured graph
LIMIT = 1800.0  # seconds for each of the largest trials, with those in which a machine is started


@dataclass(frozen=True)
class Need:
    """What a process took at its peak, in bytes.

    memory: main memory, with the libraries. gpu: of the GPU, with what CUDA takes for itself. gpu_total: all it has.
    mps: whether its node lets processes compute on a GPU at once.
    """

    memory: int
    gpu: int = 0
    gpu_total: int = 0
    mps: bool = False

    @classmethod
    def of_all(cls, needs: "list[Need]") -> "Need":
        """The most of each memory, on the smallest GPU."""
        return cls(
            max(need.memory for need in needs),
            max(need.gpu for need in needs),
            min(need.gpu_total for need in needs),
            all(need.mps for need in needs),
        )


def measured(config: SweepConfig, shared: dict[str, Any]) -> Need:
    """What the largest trials of a sweep need, each in a process of its own on some node: the most of each memory.

    Raises:
        UserError: one does not fit, fails, or takes too long.
    """
    places = config.resources
    gpus = 1.0 if places.gpu == "auto" else places.gpu
    task: Any = ray.remote(num_cpus=places.cpu, num_gpus=gpus, max_calls=1, max_retries=0)(peak)
    given = ray.put(shared | {"gpus": gpus})
    setting = "resources.gpu" if places.gpu == "auto" else "budget.concurrent"
    points = largest_points(config)
    return Need.of_all(
        [_told(task.remote(merged(DistillConfig, shared["base"], point), given), point, setting) for point in points]
    )


def _told(measurement: Any, point: dict[str, Any], setting: str) -> Need:
    try:
        need: Need = ray.get(measurement, timeout=LIMIT)
        return need
    except GetTimeoutError as error:
        ray.cancel(measurement, force=True)
        raise UserError(
            f"{setting}=auto: a trial with {point} was not measured within {LIMIT / 60:g} minutes (is there a free "
            "place for it?); say numbers instead: resources.gpu, and budget.concurrent"
        ) from error
    except OutOfMemoryError as error:
        raise UserError(f"search: a trial with {point} does not fit into a node's memory") from error
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(f"search: a trial with {point}: {cause}") from error
        raise UserError(f"search: a trial with {point} cannot be begun: {explain(str(error))}") from error


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
    """Begins a trial in this process, a few iterations and a validation, and says what it took at most.

    What a final test takes comes first, which trials do in a process of its own; on few images, as it takes them one
    block after the other.
    """
    use_threads(shared["threads"])
    config = DistillConfig(**settings | {"workers": 1, "iterations": ITERATIONS, "eval_every": ITERATIONS})
    device = pick_device(config.device, shared["gpus"])
    use_gpu_share(shared["gpus"], device)
    bank = Bank.from_numpy(shared["bank"]) if shared["bank"] else None
    with enough_gpu_memory(shared["gpus"]), suppress(Diverged):  # with these rates; it took its memory all the same
        data = Dataset.from_numpy(shared["data"]).to(device)
        run = Run(config, data, bank, device=device)
        run.data = replace(data, val=data.val.first(TEST_IMAGES), test=data.test.first(TEST_IMAGES))
        _test(run)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        run.advance()
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return Need(peak_memory(), peak_gpu_memory(device), total, mps_runs())


def _test(run: Run) -> None:
    """As many networks at a time as at the end of a run, and of its baseline."""
    few, start = run.data.test, run.distiller.initial_weights[0]
    weights = start.held_out(min(run.config.test_nets, TRAIN_CHUNK), "test", run.config.seed).to(run.device)
    evaluate_set(run.network, run.current, weights, few, run.objective)
    evaluate_networks(run.network, weights[torch.arange(DRAWS) % len(weights)], few, run.objective)


def mps_runs() -> bool:
    """Whether NVIDIA's Multi-Process Service is at hand, by the pipe of its control daemon."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()


def peak_memory() -> int:
    """The most main memory this process had, in bytes, without what it shares with the node's others (the data)."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return (int(lines["VmHWM"].split()[0]) - int(lines["RssShmem"].split()[0])) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
