"""`raydistill doctor` beside a cluster: it joins the one of RAY_ADDRESS, and says when its token is another."""

import json

import pytest

PROGRAM = """
import json, sys
from dataclasses import asdict
from raydistill.commands.doctor.examine import HERE, Check, one_after_the_other
from raydistill.commands.doctor.finding import Options
if __name__ == "__main__":
    checks = [Check(name, HERE + "ray_cluster", 60.0, "slow") for name in ("token", "ray")]
    print(json.dumps([asdict(finding) for finding in one_after_the_other(checks, Options(None, "runs"))]))
"""


@pytest.mark.parametrize("right", [True, False])
def test_a_cluster_is_joined_with_its_token_only(ray_hosts, tmp_path, right):
    from ray_hosts import PYTHON

    (tmp_path / "program.py").write_text(PROGRAM)
    other = tmp_path / "token"
    other.touch(mode=0o600)
    other.write_text("0" * 64)
    env = [f"RAY_ADDRESS={ray_hosts.address}", *([] if right else [f"RAY_AUTH_TOKEN_PATH={other}"])]
    done = ray_hosts.head.run("env", *env, PYTHON, tmp_path / "program.py", timeout=180)
    token, ray = json.loads(done.stdout.splitlines()[-1])
    assert token["ok"], token
    assert ray["ok"] == right, ray
    if right:
        assert f"RAY_ADDRESS={ray_hosts.address} answers: 3 nodes, 2 CPU, 0 GPU" in ray["found"]
    else:
        assert "bring the cluster's token here" in ray["found"], ray
