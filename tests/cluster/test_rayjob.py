"""deploy/rayjob.yaml and its image: fields that KubeRay knows, limits, no way in from outside, a sweep of ours."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.config.overrides import with_overrides
from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig

ROOT = Path(__file__).parents[2]

# Of KubeRay's ray.io/v1 (1.6), as far as we use them: an unknown field is dropped there without a word.
JOB = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
CLUSTER = {
    *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
    *("headGroupSpec", "workerGroupSpecs"),
}
HEAD = {"serviceType", "enableIngress", "rayStartParams", "template"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
POD = {
    *("serviceAccountName", "automountServiceAccountToken", "restartPolicy", "securityContext", "tolerations"),
    *("containers", "volumes"),
}
CONTAINER = {"name", "image", "workingDir", "securityContext", "env", "resources", "volumeMounts"}


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text()))


@pytest.fixture(scope="module")
def job(documents):
    return documents[1]["spec"]


@pytest.fixture(scope="module")
def cluster(job):
    return job["rayClusterSpec"]


def test_every_field_is_one_that_kuberay_knows(documents, job, cluster):
    kinds = [(document["apiVersion"], document["kind"]) for document in documents]
    assert kinds == [("v1", "ServiceAccount"), ("ray.io/v1", "RayJob")]  # and so no Service, no Ingress
    assert set(job) <= JOB
    assert set(cluster) == CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKERS
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert set(pod) <= POD
        [container] = pod["containers"]
        assert set(container) <= CONTAINER
        assert all(isinstance(variable["value"], str) for variable in container["env"])
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["volumeMounts"][0]["mountPath"] == "/dev/shm"


def test_workers_scale_from_zero_and_the_head_runs_no_trials(cluster):
    [workers] = cluster["workerGroupSpecs"]
    head = cluster["headGroupSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == 300
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (0, 0, 8)
    assert head["rayStartParams"]["num-cpus"] == "0"
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in (head, workers)]
    assert "nvidia.com/gpu" not in limits[0]
    assert limits[1]["nvidia.com/gpu"] == "1"
    assert all({"cpu", "memory"} <= set(limit) for limit in limits)


def test_nobody_outside_gets_in(documents, cluster):
    assert cluster["authOptions"] == {"mode": "token", "secretName": "raydistill-token"}
    head = cluster["headGroupSpec"]
    assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)
    for group in [head, *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == documents[0]["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    text = (ROOT / "deploy" / "rayjob.yaml").read_text()
    assert not re.search(r"(?i)(secret_access_key|password|auth_token: )", text)


def test_its_sweep_is_one_that_we_run(job):
    program, command, file, *rest = shlex.split(job["entrypoint"])
    assert (program, command) == ("raydistill", "sweep")
    assert "--set" in CliRunner().invoke(app, [command, "--help"]).output
    assert rest[::2] == ["--set"] * (len(rest) // 2)
    config = validated(SweepConfig, with_overrides(read_yaml(ROOT / file), rest[1::2]))
    assert config.storage.startswith("s3://")
    assert 0 < config.resources.gpu <= 1


def test_the_ray_version_is_one_that_we_allow(cluster):
    low, high = re.search(r'"ray\[default,tune\]>=([\d.]+),<(\d+)"', (ROOT / "pyproject.toml").read_text()).groups()
    version = [int(part) for part in cluster["rayVersion"].split(".")]
    assert [int(part) for part in low.split(".")] <= version < [int(high)]
    assert version >= [2, 52]  # token authentication


def test_the_image_holds_what_the_cluster_installs():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()}
    mounted = set(yaml.safe_load((ROOT / "cluster.yaml").read_text())["file_mounts"].values()) - {"~/.ray/auth_token"}
    assert copied == mounted
    assert all((ROOT / name).exists() for name in copied - {"uv.lock"})
    assert "--frozen --no-dev --extra aws" in text
    assert re.search(r"^USER 1000$", text, re.MULTILINE)
