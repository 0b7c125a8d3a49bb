"""The check of a cluster.yaml before `ray up`, without a network: Ray's schema, and what Ray lets through."""

import ipaddress
import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from raydistill.cluster.private_ray import readable_by_others, token_file
from raydistill.config.settings import read_yaml
from raydistill.private_api.ray import check_cluster_schema, quiet_launcher, with_cluster_defaults
from raydistill.system.errors import UserError

# Ray reads these fields below `provider`. Its schema allows any, so that Ray ignores a mistyped name without a word.
EVERY_PROVIDER = {"type", "use_internal_ips", "use_external_head_ip", "disable_node_updaters"}
PROVIDERS = {
    "aws": {"region", "availability_zone", "cache_stopped_nodes", "security_group", "key_pair", "cloudwatch"},
    "local": {"head_ip", "worker_ips", "external_head_ip", "coordinator_address"},
}
COMMANDS = (
    "initialization_commands",
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
EVERYWHERE = re.compile(r"(--[\w-]*host[= ]|--bind_all|--ip[= ])\S*")
TOKEN_COMMAND = "(umask 077; ray get-auth-token --generate > /dev/null)"


def check_cluster(file: str | Path) -> dict[str, Any]:
    """Return the content of a cluster.yaml with Ray's defaults.

    Raises:
        UserError: Ray would refuse it, or it would do harm; one line that names each bad field.
    """
    config = read_yaml(file)
    quiet_launcher()
    complaints = list(_complaints_of_ray(config))
    if not complaints:
        config = with_cluster_defaults(config)
        parts = (_provider, _nodes, _start, _ports, _token, _files)
        complaints = [complaint for part in parts for complaint in part(config)]
    if complaints:
        raise UserError(f"{file}: " + "; ".join(complaints))
    return config


def cluster_summary(config: dict[str, Any]) -> dict[str, Any]:
    """Return name, provider, and how many workers of each type there may be: {name: {least, most}}."""
    workers = {}
    for name, kind in config["available_node_types"].items():
        if name != config["head_node_type"] or config["provider"]["type"] == "local":
            machine = kind["node_config"].get("InstanceType")
            most = min(kind["max_workers"], config["max_workers"])
            workers[f"{name} ({machine})" if machine else name] = {"least": kind["min_workers"], "most": most}
    return {"cluster": config["cluster_name"], "provider": config["provider"]["type"], "workers": workers}


def _complaints_of_ray(config: dict[str, Any]) -> Iterator[str]:
    """Yield what does not follow Ray's schema, before and after Ray fills in its defaults."""
    import jsonschema

    defaults = {"cluster_synced_files": [], "max_workers": 2}  # Ray refuses every file without it.
    try:
        check_cluster_schema(defaults | config)
        for remote, local in config.get("file_mounts", {}).items():
            if not isinstance(local, str):
                yield f"file_mounts: {remote}: should be the path of a file or folder here, not {local!r}"
                return
        if config["provider"]["type"] not in PROVIDERS:
            yield f"provider.type: only {' and '.join(PROVIDERS)} can be checked, not {config['provider']['type']}"
            return
        check_cluster_schema(with_cluster_defaults(config))
    except jsonschema.ValidationError as error:
        yield ": ".join([".".join(str(part) for part in error.absolute_path) or "the file", error.message])
    except Exception as error:  # Ray raises a dozen kinds
        yield " ".join((str(error) or type(error).__name__).split())


def _provider(config: dict[str, Any]) -> Iterator[str]:
    """Yield fields of the provider that Ray does not read, that should not be there, or are missing."""
    provider = config["provider"]
    for name in provider:
        if name == "aws_credentials":
            yield "provider.aws_credentials: keep secrets out of this file; Ray finds them where the AWS tools do"
        elif name not in EVERY_PROVIDER | PROVIDERS[provider["type"]]:
            known = ", ".join(sorted(EVERY_PROVIDER | PROVIDERS[provider["type"]]))
            yield f"provider.{name}: Ray reads no such field (there are {known})"
    if provider["type"] == "aws":
        region = provider.get("region")
        if not region:
            yield "provider.region: name one, as us-west-2"
        for zone in str(provider.get("availability_zone") or "").split(","):
            if region and zone and not zone.strip().startswith(region):
                yield f"provider.availability_zone: {zone.strip()} is not in {region}"


def _nodes(config: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the types of nodes: no worker may come, or AWS has no such machine."""
    head = config["head_node_type"]
    most = 0
    for name, kind in config["available_node_types"].items():
        place = f"available_node_types.{name}"
        if config["provider"]["type"] == "aws":
            yield from _machine(kind["node_config"], f"{place}.node_config")
        if name != head or config["provider"]["type"] == "local":
            most += kind["max_workers"]
            if kind["min_workers"] > kind["max_workers"]:
                yield f"{place}.min_workers: {kind['min_workers']} is more than max_workers, {kind['max_workers']}"
        elif kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot":
            yield f"{place}.node_config.InstanceMarketOptions: the head should not be spot; with it the driver is lost"
    if min(most, config["max_workers"]) < 1:
        yield "max_workers: no worker may ever come; should be at least 1, here and in a node type"


def _machine(node: dict[str, Any], place: str) -> Iterator[str]:
    """Yield what AWS would refuse of a machine; `place` is the name of its settings in the file."""
    for name, example in (("InstanceType", "g6.xlarge"), ("ImageId", "ami-..., or resolve:ssm:...")):
        if not node.get(name):
            yield f"{place}.{name}: name one, as {example}"
    own = {"SubnetIds"}  # Ray takes one for each machine from its own field.
    given = {name: value for name, value in node.items() if name not in own} | {"MinCount": 1, "MaxCount": 1}
    validator, request = _run_instances()
    for line in validator.validate(given, request).generate_report().splitlines():
        yield f"{place}: {line.split(', must be one of')[0]}"


@cache
def _run_instances() -> tuple[Any, Any]:
    """Return what boto3 knows of the call that makes a machine: a validator, and the shape to check."""
    try:
        from botocore.session import Session
        from botocore.validate import ParamValidator
    except ImportError:
        raise UserError("provider.type=aws: Ray needs boto3 for it: uv run --extra aws ...") from None
    return ParamValidator(), Session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _start(config: dict[str, Any]) -> Iterator[str]:
    """Yield what is missing in the commands that install the project and start Ray."""
    if not config["worker_setup_commands"]:
        yield "setup_commands: nothing installs the project on the nodes"
    head = " ".join(config["head_start_ray_commands"])
    for where, option in (("head", "--head"), ("worker", "--address=$RAY_HEAD_IP")):
        if f"{option}" not in " ".join(config[f"{where}_start_ray_commands"]):
            yield f"{where}_start_ray_commands: should hold ray start {option}..."
    if "--autoscaling-config" not in head:
        yield "head_start_ray_commands: without --autoscaling-config=~/ray_bootstrap_config.yaml no worker ever comes"


def _ports(config: dict[str, Any]) -> Iterator[str]:
    """Yield what is open to the world, but for ssh, which Ray opens itself."""
    for name in COMMANDS:
        for command in config[name]:
            for option in EVERYWHERE.finditer(command):
                if option[1] == "--bind_all" or not _loopback(re.split("[= ]", option[0], maxsplit=1)[-1]):
                    yield f"{name}: {option[0]} listens for everybody; should be 127.0.0.1, which ssh reaches"
    for rule in (config["provider"].get("security_group") or {}).get("IpPermissions") or []:
        ranges = [
            r.get("CidrIp") or r.get("CidrIpv6") for r in [*rule.get("IpRanges", []), *rule.get("Ipv6Ranges", [])]
        ]
        for wide in {"0.0.0.0/0", "::/0"} & set(ranges):
            ports = f"{rule.get('FromPort', 'all')}-{rule.get('ToPort', 'all')}"
            yield f"provider.security_group.IpPermissions: ports {ports} are open to the world ({wide})"


def _loopback(host: str) -> bool:
    """Return whether only processes of the same machine reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]\"'")).is_loopback
    except ValueError:
        return False


def _token(config: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the token: whoever has it may run anything on the cluster."""
    commands = " ".join(command for name in COMMANDS for command in config[name])
    if "RAY_AUTH_MODE=token" not in commands:
        yield "setup_commands: should export RAY_AUTH_MODE=token on every node, or anybody near runs code there"
    if re.search(r"RAY_AUTH_TOKEN=", commands):
        yield "RAY_AUTH_TOKEN=...: keep the token out of this file; mount ~/.ray/auth_token"
    local = config["file_mounts"].get("~/.ray/auth_token")
    if not local:
        yield "file_mounts: should bring the token to every node: ~/.ray/auth_token: ~/.ray/auth_token"
        return
    token = Path(os.path.expanduser(local))
    if not token.is_file() or not token.read_text().strip():
        yield f"file_mounts: {local}: no token there; to make one: {TOKEN_COMMAND}"
    elif readable_by_others(token):
        quoted = local if re.fullmatch(r"~?[\w./-]+", local) else shlex.quote(str(token))
        yield f"file_mounts: {local}: others can read it; chmod 600 {quoted}"
    elif token_file() not in (None, token):
        yield f"file_mounts: {local}: is not the token that Ray uses here, RAY_AUTH_TOKEN_PATH={token_file()}"


def _files(config: dict[str, Any]) -> Iterator[str]:
    """Yield files and keys that are not there."""
    for remote, local in config["file_mounts"].items():
        if not remote.endswith("auth_token") and not Path(os.path.expanduser(local)).exists():
            hint = "; `uv lock` writes it" if Path(local).name == "uv.lock" else ""
            yield f"file_mounts: {remote}: there is no {local} in this folder{hint}"
    key = config["auth"].get("ssh_private_key")
    if key and not Path(os.path.expanduser(key)).is_file():
        yield f"auth.ssh_private_key: there is no {key}"
