"""The commands of docs/cluster.md, really run: on three hosts with ssh, with cluster.yaml but for its provider."""

import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hosts import wait_until
from ssh_hosts import SshHosts, why_no_ssh

ROOT = Path(__file__).parents[2]
RAY = (sys.executable, "-m", "ray.scripts.scripts")


class Site:
    """A laptop from which a cluster is run, and the machines of it."""

    def __init__(self, folder: Path) -> None:
        self.ssh = SshHosts(folder / "site", "laptop", "head", "worker1", "worker2")
        self.laptop, self.head, *self.workers = self.ssh.all
        self.results = folder / "results"  # stands for the bucket
        self.project = folder / "project"
        self.said = ""
        self._furnish()

    def _furnish(self) -> None:
        """The laptop's clone, its token, and cluster.yaml with another provider."""
        config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        for local in config["file_mounts"].values():
            if (ROOT / local).is_dir():
                shutil.copytree(ROOT / local, self.project / local, ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / local).exists():
                shutil.copy(ROOT / local, self.project / local)
        if not (self.project / "uv.lock").exists():  # made by `uv lock`; what these hosts run is installed already
            (self.project / "uv.lock").write_text('version = 1\nrequires-python = ">=3.11"\n')
        token = Path(self.laptop.env["HOME"], ".ray", "auth_token")
        token.parent.mkdir()
        token.touch(mode=0o600)
        self.token = secrets.token_hex(32)
        token.write_text(self.token)
        self.laptop.env |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        (self.project / "cluster.yaml").write_text(yaml.safe_dump(self.other_provider(config)))

    def other_provider(self, config):
        """Machines that are there already: no types to choose from, and another key. All else stays."""
        machines = [worker.address for worker in self.workers]
        del config["available_node_types"], config["head_node_type"]
        config["provider"] = {"type": "local", "head_ip": self.head.address, "worker_ips": machines}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.ssh.key)}
        config["max_workers"] = len(machines)
        return config

    def run(self, *words: str, timeout: float = 300) -> str:
        """What a command says on the laptop, in its clone."""
        begin = time.monotonic()
        done = self.laptop.run(*words, cwd=self.project, timeout=timeout)
        self.said += done.stdout + done.stderr
        print(f"\n$ {' '.join(words)}\n{done.stdout}\n{done.stderr}\n({time.monotonic() - begin:.1f} s)")  # with -rP
        return done.stdout


@pytest.fixture(scope="module")
def site(namespaces, tmp_path_factory):
    reason = why_no_ssh()
    if reason:
        pytest.skip(reason)
    site = Site(tmp_path_factory.mktemp("up"))
    try:
        yield site
    finally:
        site.ssh.close()


def test_a_cluster_from_up_to_down(site):
    """One test, since each step wants the one before; what each prints is in docs/cluster.md."""
    assert "ready for `ray up" in site.run(sys.executable, "-m", "raydistill.cli", "check", "cluster.yaml")
    assert "Useful commands" in site.run(*RAY, "up", "-y", "cluster.yaml")
    cores = os.cpu_count() * len(site.workers)  # those of the head do not count
    there = f"for i in $(seq 90); do ray status > seen; grep -q 0.0/{cores}.0 seen && break; sleep 1; done; cat seen"
    assert f"0.0/{cores}.0 CPU" in site.run(*RAY, "exec", "cluster.yaml", there)
    nodes_are_closed(site)
    submitted = sweep("submitted", site.results)
    result_of(site.run(*RAY, "submit", "cluster.yaml", "raydistill/cli.py", "--", *submitted), 2)
    with forwarded(site):
        job = ("job", "submit", "--address", "http://127.0.0.1:8265", "--", "raydistill")
        result_of(site.run(*RAY, *job, *sweep("job", site.results, trials=1)), 1)
    logs = [path for host in site.ssh.all for path in host.folder.joinpath("ray").rglob("*") if path.is_file()]
    assert len(logs) > 30
    assert not [path for path in logs if site.token.encode() in path.read_bytes()]
    assert site.token not in site.said
    site.run(*RAY, "down", "-y", "cluster.yaml")
    wait_until(lambda: not site.head.processes("gcs_server"), 20, "the end of Ray on the head")


def sweep(name, storage, trials=2):
    settings = {
        "name": name,
        "storage": storage,
        "budget.trials": trials,
        "budget.iterations": 2,
        "budget.concurrent": 1,  # in one process, which has to load torch once
        "base.eval_every": 2,
    }
    overrides = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return ["sweep", "raydistill/sweeps/digits.yaml", *overrides, "--json"]


def result_of(said, trials):
    [line] = [line for line in said.splitlines() if line.startswith('{"name":')]
    result = json.loads(line)
    assert result["trials"] == trials
    assert all(Path(point["artifact"], "manifest.json").exists() for point in result["front"])


def nodes_are_closed(site):
    """The token is there for one user; the dashboard is on loopback; whoever has another token is sent away."""
    for host in (site.head, *site.workers):
        token = host.folder / "home" / ".ray" / "auth_token"
        assert token.read_text() == site.token
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
    listening = [
        line.split()[1]
        for line in site.head.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
        if line.split()[3] == "0A"
    ]
    assert [address for address in listening if address.endswith(f":{8265:04X}")] == [f"0100007F:{8265:04X}"]
    ask = (
        "from ray._raylet import GcsClient\n"
        f"print(GcsClient(address='{site.head.address}:6379').internal_kv_keys(b'', namespace=None, timeout=10))"
    )
    for token, passes in ((site.token, True), ("0" * 64, False)):
        done = site.laptop.run("env", f"RAY_AUTH_TOKEN={token}", sys.executable, "-c", ask, check=False)
        assert (done.returncode == 0) is passes, done.stderr
        assert passes or "InvalidAuthToken" in done.stderr or "nauthenticated" in done.stderr, done.stderr


@contextmanager
def forwarded(site):
    """Within it the head's dashboard is on the laptop's loopback."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dashboard = site.laptop.start(*RAY, "dashboard", "cluster.yaml", cwd=site.project, **quiet)
    try:
        knock = "import socket; socket.create_connection(('127.0.0.1', 8265), 1)"
        answers = ("env", "-i", sys.executable, "-c", knock)
        wait_until(lambda: site.laptop.run(*answers, check=False).returncode == 0, 60, "a dashboard", pause=1)
        yield
    finally:
        dashboard.kill()
