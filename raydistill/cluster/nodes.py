"""The nodes of a cluster, and those that its autoscaler may start."""

import os
from collections.abc import Iterator
from pathlib import Path

import ray

from raydistill.private_api.ray import autoscaler_config, started_here
from raydistill.system.plain_yaml import parse_yaml

Kind = tuple[dict[str, float], int]  # A node's resources, and how many such nodes there may be.
BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # The file that `ray up` leaves on the head.


def nodes_there() -> list[dict[str, float]]:
    """Return the resources of each node that is there now."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def nodes_to_come() -> list[Kind]:
    """Return what the cluster's autoscaler may start; nothing where there is none, or it does not say.

    An autoscaler tells Ray (those of other platforms do), or it was started with the file of `ray up`, and this is the
    head.
    """
    return list(_configured()) or ([] if started_here() else list(_planned(Path(os.path.expanduser(BOOTSTRAP)))))


def gpus_of(nodes: list[dict[str, float]], kinds: list[Kind]) -> int:
    """Return how many GPUs there are, or may come to be."""
    there = sum(node.get("GPU", 0) for node in nodes)
    return int(max(there, sum(count * resources.get("GPU", 0) for resources, count in kinds)))


def _configured() -> Iterator[Kind]:
    """Yield the kinds of nodes in the configuration that an autoscaler gave Ray."""
    config = autoscaler_config()
    for kind in config.node_group_configs if config else ():
        count = kind.max_count if kind.max_count >= 0 else 10**6  # -1 is as many as one likes
        if count:
            yield dict(kind.resources), count


def _planned(file: Path) -> Iterator[Kind]:
    """Yield the kinds of workers in the file of `ray up`."""
    if not file.is_file() or not os.access(file, os.R_OK):
        return
    config = parse_yaml(file.read_text(encoding="utf-8")) or {}
    most = config.get("max_workers", 0)
    for name, kind in config.get("available_node_types", {}).items():
        count = min(most, kind.get("max_workers", most))
        if name != config.get("head_node_type") and count and kind.get("resources"):
            yield {key: float(value) for key, value in kind["resources"].items()}, count
