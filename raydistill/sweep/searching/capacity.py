"""The resources of a trial, and how many trials fit on a cluster, by the measured memory of the largest one."""

import math
from collections.abc import Callable

from raydistill.cluster.nodes import Kind, gpus_of, nodes_there, nodes_to_come
from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_sections import Resources
from raydistill.sweep.searching.memory_need import Need, measured
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.system.errors import UserError
from raydistill.system.gpu_memory import GIB, LEAST
from raydistill.system.storage import exists, join, read_json, write_json

RESERVE = 1.1  # A trial gets its measured memory times this factor.
MOST_ON_A_GPU = 2  # Trials that auto puts on one GPU: processes take turns there, so more would not learn faster.
MOST_WITH_MPS = 8  # With MPS they compute at once: eight learn twice as fast as one (docs/performance.md).
PLACES = "resources.json"  # The file in a sweep's folder with the resources that auto measured.


def fitted(
    config: SweepConfig,
    inputs: TrialInputs,
    folder: str,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Resources:
    """Return the resources of a trial: with `concurrent: auto` measured ones, otherwise those that the user wrote.

    Ray puts as many trials on a node as their cores, GPU shares and memory allow. The measured resources are written to
    the sweep's folder, so that a resume need not measure again.

    Args:
        config: the sweep.
        inputs: what all its trials share.
        folder: where it lies.
        resume: whether to use what an earlier driver measured.
        say: prints what was measured, how many trials fit, and that GPUs stay idle.

    Raises:
        UserError: the largest trial does not fit on any node, or into its share of a GPU.
    """
    places = config.resources
    nodes, kinds = nodes_there(), nodes_to_come()
    if places.gpu != "auto" and not places.gpu:
        _say_idle_gpus(config, nodes, kinds, say)
    if config.budget.concurrent != "auto" and places.gpu != "auto":
        return places
    kept = join(folder, PLACES)
    if resume and exists(kept):
        return validated(Resources, read_json(kept), f"{kept}: ")
    places = _measured_places(config, inputs, say)
    write_json(kept, places.model_dump(mode="json"))
    return places


def _measured_places(config: SweepConfig, inputs: TrialInputs, say: Callable[[str], None]) -> Resources:
    places = config.resources
    need = measured(config, inputs)
    if places.gpu == "auto":
        places = places.model_copy(update={"gpu": gpu_share(need)})
    if places.memory is None:
        places = places.model_copy(update={"memory": RESERVE * need.memory / GIB})
    nodes, kinds = nodes_there(), nodes_to_come()  # The cluster may have started nodes for the measurement.
    every = [*nodes, *(kind for kind, _ in kinds)]
    if all(room(node, Resources(cpu=0.001, memory=places.memory)) == 0 for node in every):
        largest = max((node.get("memory", 0) for node in every), default=0)
        raise UserError(
            f"resources.memory={places.memory:.1f}: GiB that the largest trial needs; the largest node gives Ray "
            f"{largest / GIB:.1f}. Search smaller sets, batches or fewer networks"
        )
    workers = config.trial_config({}).workers
    gpu = f" and {need.gpu / GIB:.1f} GiB of the GPU" if need.gpu else ""
    now = sum(room(node, places) for node in nodes) // workers
    later = sum(count * room(kind, places) for kind, count in kinds) // workers
    more = f", {later} on all that may be started" if later > now else ""
    say(
        f"the largest trial takes {need.memory / GIB:.1f} GiB{gpu} (measured); {now} fit at a time on these nodes{more}"
    )
    return places


def _say_idle_gpus(
    config: SweepConfig, nodes: list[dict[str, float]], kinds: list[Kind], say: Callable[[str], None]
) -> None:
    """Print that the cluster's GPUs stay idle, if trials would compute on a GPU that they were given."""
    count = gpus_of(nodes, kinds)
    if count and config.trial_config({}).device == "auto":
        say(
            f"resources.gpu=0: trials compute on CPUs, and {count} GPU{'s' * (count > 1)} of the cluster stay idle; "
            "--set resources.gpu=0.25 puts four trials on one, auto finds the share"
        )


def room(node: dict[str, float], places: Resources) -> int:
    """Return how many trials fit on a node, by the resource of which it has least."""
    bundle = places.bundle()
    return min(math.floor(node.get(name, 0.0) / amount + 1e-6) for name, amount in bundle.items())


def gpu_share(need: Need) -> float:
    """Return the smallest share 1/k of a GPU that holds a trial; k is at most `MOST_ON_A_GPU` or `MOST_WITH_MPS`.

    Raises:
        UserError: there is no GPU, or it is too small.
    """
    if not need.gpu_total:
        raise UserError("resources.gpu=auto: the largest trial was measured on a node without a GPU; say 0 or a number")
    count = math.floor(need.gpu_total / max(RESERVE * need.gpu, LEAST))
    if count == 0:
        raise UserError(
            f"resources.gpu=auto: the largest trial needs {need.gpu / GIB:.1f} GiB of a GPU that has "
            f"{need.gpu_total / GIB:.1f}; search smaller sets, batches or fewer networks"
        )
    return 1 / min(count, MOST_WITH_MPS if need.mps else MOST_ON_A_GPU)
