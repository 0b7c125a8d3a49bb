"""A cluster of the user's, with or without tokens, is joined by a process that has set nothing but RAY_ADDRESS."""

import secrets

import pytest

pytestmark = pytest.mark.usefixtures("namespaces")

JOIN = """
import ray
from raydistill.cluster.connect import connect
from raydistill.system.errors import UserError
try:
    connect()
    print("joined", len(ray.nodes()), ray.get(ray.remote(lambda: 1).remote()))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_cluster_of_the_users(tmp_path, mode):
    from hosts import Hosts
    from ray_hosts import PORT, PYTHON, RAY, ray_env

    env = ray_env(tmp_path) | {"RAY_AUTH_MODE": mode}
    token = (tmp_path / "token").read_text()
    with Hosts(tmp_path / "hosts", env) as hosts:
        head = hosts.add("head")
        common = ("--object-store-memory=200000000", "--disable-usage-stats", "--include-dashboard=false")
        head.run(*RAY, "start", "--head", f"--port={PORT}", f"--node-ip-address={head.address}", *common, timeout=180)

        def joined(kept):
            """What is said with this token in the home folder."""
            folder = tmp_path / "home" / ".ray"
            folder.mkdir(exist_ok=True)
            (folder / "auth_token").unlink(missing_ok=True)
            if kept:
                (folder / "auth_token").touch(mode=0o600)
                (folder / "auth_token").write_text(kept)
            free = ("-u", "RAY_AUTH_MODE", "-u", "RAY_AUTH_TOKEN_PATH", f"RAY_ADDRESS={head.address}:{PORT}")
            return head.run("env", *free, PYTHON, "-c", JOIN, timeout=180).stdout.splitlines()[-1]

        assert joined(token) == "joined 1 1"
        for wrong in (None, secrets.token_hex(32)):
            said = joined(wrong)
            if mode == "disabled":
                assert said == "joined 1 1"
            else:
                assert said.startswith(f"RAY_ADDRESS={head.address}:{PORT}: cannot be joined: ")
                assert "bring the cluster's token here (~/.ray/auth_token, mode 600), or unset it" in said
