"""cluster.yaml, as Ray and AWS would take it, and spoilt in every way we know."""

from pathlib import Path

import pytest
import yaml

from raydistill.cluster.cluster_file import check_cluster, cluster_summary
from raydistill.config.overrides import with_overrides
from raydistill.system.errors import UserError

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A clone's folder with all that cluster.yaml mounts, and a home with a token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.touch(mode=0o600)
    token.write_text("secret")
    for name in ("raydistill", "sweeps"):
        (tmp_path / name).mkdir()
    for name in ("README.md", "pyproject.toml", "uv.lock"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def good():
    return yaml.safe_load(CLUSTER.read_text())


def checked(folder, config):
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(config) if isinstance(config, dict) else config)
    return check_cluster("cluster.yaml")


def test_ours_is_good(folder, good):
    assert cluster_summary(checked(folder, good)) == {
        "cluster": "raydistill",
        "provider": "aws",
        "workers": {"gpu (g6.xlarge)": {"least": 0, "most": 8}},
    }


def test_ray_adds_no_commands_of_its_own(folder, good):
    """Its default head_setup_commands call pip; its default start commands open the dashboard to all."""
    completed = checked(folder, good)
    assert completed["head_setup_commands"] == completed["worker_setup_commands"] == good["setup_commands"]
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert completed[name] == good[name]


def local(good):
    config = {k: v for k, v in good.items() if k not in ("available_node_types", "head_node_type")}
    return config | {"provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}}


def test_own_machines_are_good(folder, good):
    config = local(good) | {"max_workers": 2}
    assert cluster_summary(checked(folder, config))["workers"] == {"local.cluster.node": {"least": 2, "most": 2}}


GPU = "available_node_types.gpu"
SPOILT = {
    "max_worker=3": "the file: .*'max_worker' was unexpected",
    "cluster_name=": "cluster_name: None is not of type 'string'",
    "max_workers=many": "max_workers: 'many' is not of type 'integer'",
    "max_workers=0": "max_workers: no worker may ever come",
    f"{GPU}.max_workers=0": "max_workers: no worker may ever come",
    f"{GPU}.min_workers=9": "sum of `min_workers`",
    f"{GPU}.resources.GPU=0.5": f"{GPU}.resources.GPU: 0.5 is not of type 'integer'",
    "head_node_type=boss": "`head_node_type` must be one of",
    "provider=aws": "provider: 'aws' is not of type 'object'",
    "provider.type=gcp": "provider.type: only aws and local can be checked, not gcp",
    "provider.type=": "provider.type: None is not of type 'string'",
    "provider.availability_zones=us-west-2a": r"provider.availability_zones: Ray reads no such field \(there are .*",
    "provider.region=": "provider.region: None is not of type 'string'",
    "provider.region=''": "provider.region: name one",
    "provider.region=eu-west-1": "provider.availability_zone: us-west-2a is not in eu-west-1",
    "provider.aws_credentials.aws_secret_access_key=x": "provider.aws_credentials: keep secrets out",
    f"{GPU}.node_config.InstanceType=": f"{GPU}.node_config.InstanceType: name one, as g6.xlarge",
    f"{GPU}.node_config.ImageId=": f"{GPU}.node_config.ImageId: name one",
    f"{GPU}.node_config.Spot=true": f'{GPU}.node_config: Unknown parameter in input: "Spot"',
    f"{GPU}.node_config.InstanceMarketOptions.SpotOptions.MaxPrice=0.5": "MaxPrice, value: 0.5",
    "available_node_types.head.node_config.InstanceMarketOptions.MarketType=spot": "the head should not be spot",
    "setup_commands=[]": "setup_commands: nothing installs .*RAY_AUTH_MODE=token",
    "setup_commands=[export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=abc]": "keep the token out of this file",
    "setup_commands=[uv sync]": "setup_commands: should export RAY_AUTH_MODE=token",
    "head_start_ray_commands=[ray start --head]": "without --autoscaling-config",
    "head_start_ray_commands=[ray start]": "should hold ray start --head",
    "worker_start_ray_commands=[ray stop]": r"worker_start_ray_commands: should hold ray start --address=\$RAY_HEAD_IP",
    "head_setup_commands=[tensorboard --bind_all]": "head_setup_commands: --bind_all listens for everybody",
    "head_setup_commands=[tensorboard --host 0.0.0.0]": "--host 0.0.0.0 listens for everybody",
    "file_mounts.~/.ray/auth_token=": "file_mounts: ~/.ray/auth_token: should be the path of a file or folder",
    "file_mounts.~/data=data": "file_mounts: ~/data: there is no data in this folder",
    "auth.ssh_private_key=~/.ssh/none.pem": "auth.ssh_private_key: there is no ~/.ssh/none.pem",
    "auth.ssh_user=7": "auth.ssh_user: 7 is not of type 'string'",
}


@pytest.mark.parametrize("change", SPOILT)
def test_what_is_spoilt_is_named_in_one_line(folder, good, change):
    if "." in change and "~" in change.partition("=")[0]:
        name, _, value = change.removeprefix("file_mounts.").partition("=")
        good["file_mounts"][name] = value or None
    else:
        good = with_overrides(good, [change])
    with pytest.raises(UserError, match=SPOILT[change]) as caught:
        checked(folder, good)
    assert str(caught.value).startswith("cluster.yaml: ")
    assert "\n" not in str(caught.value)


def test_rays_own_default_would_open_the_dashboard(folder, good):
    del good["head_start_ray_commands"]
    with pytest.raises(UserError, match=r"head_start_ray_commands: --dashboard-host=0\.0\.0\.0 listens for everybody"):
        checked(folder, good)


def test_ports_open_to_the_world(folder, good):
    rule = {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp"}
    for wide in ({"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}):
        good["provider"]["security_group"] = {"IpPermissions": [rule | wide]}
        with pytest.raises(UserError, match="IpPermissions: ports 8265-8265 are open to the world"):
            checked(folder, good)
    good["provider"]["security_group"] = {"IpPermissions": [rule | {"IpRanges": [{"CidrIp": "192.0.2.0/24"}]}]}
    checked(folder, good)


def test_the_token(folder, good, monkeypatch):
    token = folder / "home" / ".ray" / "auth_token"
    token.chmod(0o644)
    with pytest.raises(UserError, match=r"others can read it; chmod 600 ~/\.ray/auth_token"):
        checked(folder, good)
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "elsewhere")
    with pytest.raises(UserError, match="is not the token that Ray uses here, RAY_AUTH_TOKEN_PATH=elsewhere"):
        checked(folder, good)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    for spoil in (lambda: token.write_text("\n"), token.unlink):
        spoil()
        with pytest.raises(UserError, match=r"no token there; to make one: \(umask 077; ray get-auth-token"):
            checked(folder, good)


def test_no_token_mounted(folder, good):
    del good["file_mounts"]["~/.ray/auth_token"]
    with pytest.raises(UserError, match="file_mounts: should bring the token to every node"):
        checked(folder, good)


def test_no_lock(folder, good):
    (folder / "uv.lock").unlink()
    with pytest.raises(UserError, match=r"there is no uv\.lock in this folder; `uv lock` writes it"):
        checked(folder, good)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: {", "", "provider: []\n", "provider:\ncluster_name: x\n"])
def test_other_files(folder, text):
    with pytest.raises(UserError, match=r"^cluster\.yaml: "):
        checked(folder, text)
    with pytest.raises(UserError, match="no such file"):
        check_cluster("none.yaml")


def test_own_machines_need_their_names(folder, good):
    config = local(good)
    del config["provider"]["head_ip"]
    with pytest.raises(UserError, match=r"^cluster\.yaml: .*head_ip"):
        checked(folder, config)
