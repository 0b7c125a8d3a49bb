"""A Ray cluster on hosts of `hosts.py`, with token authentication and a folder that all of them share."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hosts import Host, Hosts

PORT = 6379
PYTHON = sys.executable
RAY = (PYTHON, "-m", "ray.scripts.scripts")


def ray_env(folder: Path) -> dict[str, str]:
    """The environment of a Ray that asks nobody outside and takes no orders without the token, which is made here."""
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")  # else Ray asks a cloud
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    return kept | {
        "HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "OMP_NUM_THREADS": "1",
    }


class RayHosts:
    """A head without cores, where drivers run, and workers that come and go. A context manager.

    Args:
        folder: of all files; `folder`/shared is meant for what the hosts share.
        workers: how many to begin with.
        cpus: of each worker.
    """

    def __init__(self, folder: Path, workers: int = 2, cpus: int = 1) -> None:
        self.cpus, self.shared = cpus, folder / "shared"
        self.shared.mkdir(parents=True)
        self.hosts = Hosts(folder / "hosts", ray_env(folder))
        self.workers: list[Host] = []
        try:
            self.head = self.hosts.add("head")
            self.address = f"{self.head.address}:{PORT}"
            self.env = self.head.env | {"RAY_ADDRESS": self.address}
            self._begin(self.head, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")()
            for ready in [self._join() for _ in range(workers)]:
                ready()
        except BaseException:
            self.close()
            raise

    def add_worker(self) -> Host:
        """Another host joins the cluster."""
        self._join()()
        return self.workers[-1]

    def _join(self) -> Callable[[], None]:
        host = self.hosts.add()
        self.workers.append(host)
        return self._begin(host, f"--address={self.address}", f"--num-cpus={self.cpus}")

    def lose_worker(self, host: Host) -> None:
        """A host of the cluster is gone."""
        self.workers.remove(host)
        host.kill()

    def _begin(self, host: Host, *options: str) -> Callable[[], None]:
        """Starts Ray; what is returned waits until it has begun."""
        common = (f"--node-ip-address={host.address}", "--object-store-memory=200000000")
        process = host.start(*RAY, "start", *options, *common, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        def ready() -> None:
            said, _ = process.communicate(timeout=180)
            assert process.returncode == 0, f"{host.name}: {said}"

        return ready

    def close(self) -> None:
        """Ends everything."""
        self.hosts.close()

    def __enter__(self) -> "RayHosts":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
