"""What a cluster has, and what its autoscaler may start."""

import pytest
import ray
import yaml
from ray.core.generated.autoscaler_pb2 import ClusterConfig
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

from raydistill.cluster import nodes
from raydistill.cluster.connect import ray_running
from raydistill.config.sweep_sections import Resources

KINDS = {
    "head": {"resources": {"CPU": 0, "GPU": 0}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 4, "GPU": 1, "memory": 2**33}, "max_workers": 8},
    "unknown": {"resources": {}, "max_workers": 8},
}


def test_the_file_of_ray_up(tmp_path):
    """As `ray up` leaves it on the head, with the resources that it found out."""
    file = tmp_path / "bootstrap.yaml"
    assert list(nodes._planned(file)) == []
    file.write_text(yaml.safe_dump({"max_workers": 6, "head_node_type": "head", "available_node_types": KINDS}))
    assert list(nodes._planned(file)) == [({"CPU": 4.0, "GPU": 1.0, "memory": 2.0**33}, 6)]
    file.write_text("provider: {type: local}\n")
    assert list(nodes._planned(file)) == []


@pytest.mark.ray
@pytest.mark.slow
def test_what_an_autoscaler_told_ray():
    """It leaves its configuration in Ray's own store, from which Ray reads it."""
    config = ClusterConfig()
    config.node_group_configs.add(name="gpu", max_count=3, resources={"CPU": 8, "GPU": 2})
    config.node_group_configs.add(name="none", max_count=0, resources={"CPU": 8})
    place = {
        "key": ray._raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY,
        "namespace": ray._raylet.GCS_AUTOSCALER_STATE_NAMESPACE,
    }
    with ray_running(Resources()):
        assert nodes.nodes_to_come() == []
        _internal_kv_put(place["key"], config.SerializeToString(), namespace=place["namespace"])
        kinds = nodes.nodes_to_come()
        assert kinds == [({"CPU": 8.0, "GPU": 2.0}, 3)]
        there = nodes.nodes_there()
        assert len(there) == 1
        assert there[0]["CPU"] >= 1
        assert nodes.gpus_of([{"CPU": 1}], kinds) == 6
        assert nodes.gpus_of([{"GPU": 1.0}], []) == 1
        _internal_kv_del(place["key"], namespace=place["namespace"])
        assert nodes.nodes_to_come() == []
