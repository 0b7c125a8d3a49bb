"""What Ray would do with cluster.yaml on AWS, done to a simulated one: keys, groups, machines. Nothing leaves here."""

import json
import os
import stat
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster.yaml"
REGION = "us-west-2"


@pytest.fixture
def aws(tmp_path, monkeypatch):
    """An account with the two profiles that docs/cluster.md makes, and a home without keys."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        iam = boto3.client("iam", region_name=REGION)
        policies = {path.stem: path.read_text() for path in (ROOT / "deploy" / "aws").glob("*.json")}
        for name, allowed in (("raydistill-head", ("head", "bucket")), ("raydistill-worker", ("bucket",))):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=policies["trust"])
            for what in allowed:
                iam.put_role_policy(RoleName=name, PolicyName=what, PolicyDocument=policies[what])
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        yield boto3.client("ec2", region_name=REGION)


@pytest.mark.slow
def test_ray_makes_head_and_workers_of_it(aws, tmp_path):
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    validate_config(config)
    config = AWSNodeProvider.bootstrap_config(config)

    kinds = config["available_node_types"]
    assert kinds["head"]["resources"]["CPU"] == 0
    gpu = kinds["gpu"]["resources"]
    assert (gpu["CPU"], gpu["GPU"], gpu["accelerator_type:L4"]) == (4, 1, 1)  # so that Ray knows what one would bring

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name in kinds:
        provider.create_node(kinds[name]["node_config"], {"ray-node-name": name}, 1)
    machines = [machine for r in aws.describe_instances()["Reservations"] for machine in r["Instances"]]
    head, worker = sorted(machines, key=lambda machine: machine["InstanceType"], reverse=True)
    assert (head["InstanceType"], head.get("InstanceLifecycle")) == ("m6i.xlarge", None)
    assert (worker["InstanceType"], worker.get("InstanceLifecycle")) == ("g6.xlarge", "spot")
    for machine, profile in ((head, "raydistill-head"), (worker, "raydistill-worker")):
        assert machine["IamInstanceProfile"]["Arn"].endswith(f"/{profile}")
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert machine["Placement"]["AvailabilityZone"].startswith(REGION)


@pytest.mark.slow
def test_only_ssh_is_open_to_the_world_and_its_key_is_ours(aws, tmp_path):
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = AWSNodeProvider.bootstrap_config(prepare_config(yaml.safe_load(CLUSTER.read_text())))
    [group] = {g for kind in config["available_node_types"].values() for g in kind["node_config"]["SecurityGroupIds"]}
    [found] = aws.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    world = [rule for rule in found["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in world] == [(22, 22)]
    [within] = [rule for rule in found["IpPermissions"] if rule not in world]
    assert [pair["GroupId"] for pair in within["UserIdGroupPairs"]] == [group]
    key = Path(config["auth"]["ssh_private_key"])
    assert key.is_relative_to(tmp_path)
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600


def test_what_the_roles_may_do():
    """Workers get at the bucket and nothing else; the head may hand on the workers' role only."""
    roles = {path.stem: json.loads(path.read_text())["Statement"] for path in (ROOT / "deploy" / "aws").glob("*.json")}
    assert set(roles) == {"trust", "bucket", "head"}
    assert all(resource.startswith("arn:aws:s3:::my-bucket") for resource in _resources(roles["bucket"]))
    [passed] = [statement for statement in roles["head"] if statement["Action"] == "iam:PassRole"]
    assert passed["Resource"].endswith(":role/raydistill-worker")
    assert not [
        action for role in roles.values() for action in _actions(role) if action.endswith(":*") or action == "*"
    ]


def _resources(statements):
    return [statement["Resource"] for statement in statements]


def _actions(statements):
    found = [statement["Action"] for statement in statements]
    return [action for actions in found for action in ([actions] if isinstance(actions, str) else actions)]
