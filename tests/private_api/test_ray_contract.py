"""What Ray's private names are relied upon to do, without a cluster; one is started in test_running_ray.py."""

import logging
import os
import subprocess
import sys

import jsonschema
import pytest
import ray
from ray._common.utils import get_ray_address_file
from ray._private import accelerators, services
from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]
from ray.autoscaler._private import util as launcher
from ray.tune.experimental.output import get_air_verbosity

from raydistill.private_api.environment import VARIABLES
from raydistill.private_api.ray import (
    bootstrap_address,
    check_cluster_schema,
    cluster_file,
    in_own_process_groups,
    on_loopback,
    quiet_launcher,
    ray_folder,
    read_environment_again,
    with_cluster_defaults,
)

LOCAL = {"cluster_name": "c", "provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"]}}


def test_a_ray_that_builds_no_clusters_has_the_loopback_address(monkeypatch):
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    before = services.get_node_ip_address()
    with on_loopback():
        assert services.get_node_ip_address() == "127.0.0.1"
    assert services.get_node_ip_address() == before


def test_its_processes_are_started_by_the_class_that_is_replaced():
    assert "ConsolePopen" in services.start_ray_process.__code__.co_names
    with in_own_process_groups():
        child = services.ConsolePopen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert os.getpgid(child.pid) == child.pid
        child.communicate(b"\n")
    assert isinstance(services.ConsolePopen, type)


def test_the_environment_is_read_again(monkeypatch):
    try:
        for mode, value in (("token", AuthenticationMode.TOKEN), ("disabled", AuthenticationMode.DISABLED)):
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
            read_environment_again()
            assert get_authentication_mode() == value
    finally:
        monkeypatch.undo()
        read_environment_again()


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_the_address_and_where_it_is_written(monkeypatch, tmp_path, variable):
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert ray_folder()[0] == ""
    assert str(cluster_file()) == get_ray_address_file(None)
    monkeypatch.setenv(variable, str(tmp_path))
    assert ray_folder() == (variable, tmp_path / "ray")
    assert str(cluster_file()) == get_ray_address_file(None)
    assert bootstrap_address() is None
    cluster_file().parent.mkdir()
    cluster_file().write_text("192.0.2.1:6379")
    assert bootstrap_address() == "192.0.2.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.2:6379")
    assert bootstrap_address() == "192.0.2.2:6379"
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        bootstrap_address()


def test_the_launcher_checks_and_completes_a_file():
    with pytest.raises(jsonschema.ValidationError):
        check_cluster_schema(LOCAL | {"max_workers": "many", "cluster_synced_files": []})
    completed = with_cluster_defaults(LOCAL | {"max_workers": 1})
    assert completed["head_node_type"] in completed["available_node_types"]
    check_cluster_schema(completed)


def test_the_launcher_is_silenced():
    logger = logging.getLogger("ray.autoscaler")
    level = logger.level
    try:
        quiet_launcher()
        assert not launcher.logger.isEnabledFor(logging.WARNING)
    finally:
        logger.setLevel(level)


def test_tune_prints_no_tables_of_its_own(monkeypatch):
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", VARIABLES["RAY_AIR_NEW_OUTPUT"])
    assert get_air_verbosity(1) is None


def test_the_variable_of_gpus_has_its_name():
    name = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
    assert name == accelerators.RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR
    assert name in VARIABLES
