"""The memory that the largest trial of a sweep needs, measured in a process that begins it once."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError

from raydistill.config.recipe_settings import AdamRecipe, OptimizerRecipe
from raydistill.config.sweep_config import SweepConfig
from raydistill.evaluation.accuracy import TEST_IMAGES, TRAIN_CHUNK, evaluate_networks, train_networks
from raydistill.evaluation.baselines import DRAWS
from raydistill.kernels.cuda_graph import WARM_UP
from raydistill.runs.run import Run
from raydistill.sweep.error_reasons import explain
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.system.errors import Diverged, UserError
from raydistill.system.gpu_memory import enough_gpu_memory, peak_gpu_memory

ITERATIONS = WARM_UP + 2  # On a GPU the last two replay a captured graph.
LIMIT = 1800.0  # Seconds for each of the largest trials, in which a cluster may have to start a machine.


@dataclass(frozen=True)
class Need:
    """The memory that a process took at its peak, in bytes, and the GPU on which it ran."""

    memory: int
    """Main memory, libraries included."""
    gpu: int = 0
    """Memory of the GPU, including what CUDA takes for itself."""
    gpu_total: int = 0
    """The whole memory of the GPU."""
    mps: bool = False
    """Whether NVIDIA's Multi-Process Service runs there, with which processes compute on a GPU at the same time."""

    @classmethod
    def of_all(cls, needs: "list[Need]") -> "Need":
        """Return the most of each memory, on the smallest GPU."""
        return cls(
            max(need.memory for need in needs),
            max(need.gpu for need in needs),
            min(need.gpu_total for need in needs),
            all(need.mps for need in needs),
        )


def measured(config: SweepConfig, inputs: TrialInputs) -> Need:
    """Measure the largest trials of a sweep, each in a process of its own on some node: the most of each memory.

    Args:
        config: the sweep.
        inputs: what its trials share.

    Raises:
        UserError: one does not fit, fails, or takes too long.
    """
    places = config.resources
    gpus = 1.0 if places.gpu == "auto" else places.gpu
    task: Any = ray.remote(num_cpus=places.cpu, num_gpus=gpus, max_calls=1, max_retries=0)(peak)
    given = ray.put(replace(inputs, gpus=gpus))
    setting = "resources.gpu" if places.gpu == "auto" else "budget.concurrent"
    points = largest_points(config)
    return Need.of_all([_need_of(task.remote(point, given), point, setting) for point in points])


def _need_of(measurement: Any, point: dict[str, Any], setting: str) -> Need:
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
    """Return the points that need most memory: whole numbers at their upper ends, rates at their lower ones.

    There is one for each network that is searched.
    """
    point = {}
    for name, distribution in config.search.items():
        numbers = all(isinstance(value, (int, float)) for value in distribution.ends)
        whole = all(isinstance(value, int) for value in distribution.ends)
        point[name] = distribution.ends[0] if not numbers else (max if whole else min)(distribution.ends)
    networks = config.search["network"].ends if "network" in config.search else [None]
    return [point | ({"network": network} if network else {}) for network in networks]


def peak(point: dict[str, Any], inputs: TrialInputs) -> Need:
    """Begin a trial in this process, with a few iterations and a validation, and return the most that it took.

    A final test comes first, as a sweep gives it the same resources. It runs on few images, because it takes memory for
    one block of them at a time.
    """
    config = inputs.config_with(point, workers=1, iterations=ITERATIONS, eval_every=ITERATIONS)
    device = inputs.begin_process(config.device)
    # With these rates the run may diverge, but only after it took its memory.
    with enough_gpu_memory(inputs.gpus), suppress(Diverged):
        data = inputs.load_data().to(device)
        run = Run(config, data, inputs.load_bank(), device=device)
        few = replace(data, val=data.val.first(TEST_IMAGES), test=data.test.first(TEST_IMAGES))
        run.problem = replace(run.problem, data=few)
        _test(run)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        run.advance()
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return Need(peak_memory(), peak_gpu_memory(device), total, mps_runs())


def _test(run: Run) -> None:
    """Test as many networks at a time as the end of a run does, and as its baseline does."""
    problem, config = run.problem, run.config
    count = min(config.test_nets, TRAIN_CHUNK)
    weights = problem.initial_weights[0].held_out(count, "test", config.seed).to(problem.device)
    for recipe in (run.recipe, AdamRecipe()):  # Random real images are trained on by an optimizer in any case.
        if isinstance(recipe, OptimizerRecipe):
            recipe = recipe.changed({"steps": 2, "warm_up": 0})  # More take no more memory.
        trained = train_networks(problem.network, run.current, weights, recipe)
        evaluate_networks(problem.network, trained, problem.data.test, problem.objective)
    many = weights[torch.arange(DRAWS) % len(weights)]
    evaluate_networks(problem.network, many, problem.data.test, problem.objective)


def mps_runs() -> bool:
    """Return whether NVIDIA's Multi-Process Service runs here, which its control daemon's pipe shows."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()


def peak_memory() -> int:
    """Return the most main memory this process had, in bytes, without what the node's processes share (the data)."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return (int(lines["VmHWM"].split()[0]) - int(lines["RssShmem"].split()[0])) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
