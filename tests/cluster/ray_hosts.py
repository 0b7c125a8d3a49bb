"""A Ray cluster on hosts of `hosts.py`, with token authentication and a folder that all of them share."""

import os
import secrets
import sys
from pathlib import Path

from hosts import Host, Hosts

PORT = 6379
TRIES = 3  # of a host to join: Ray gives it half a minute, which is little on a busy machine
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
            self._begin(self.head, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
            for _ in range(workers):
                self.add_worker()
        except BaseException:
            self.close()
            raise

    def add_worker(self) -> Host:
        """Another host joins the cluster."""
        for _ in range(TRIES):
            host = self.hosts.add()
            self.workers.append(host)
            try:
                self._begin(host, f"--address={self.address}", f"--num-cpus={self.cpus}")
                return host
            except AssertionError as error:
                self.lose_worker(host)
                failed = error
        raise failed

    def lose_worker(self, host: Host) -> None:
        """A host of the cluster is gone."""
        self.workers.remove(host)
        host.kill()

    def _begin(self, host: Host, *options: str) -> None:
        common = (f"--node-ip-address={host.address}", "--object-store-memory=200000000", "--disable-usage-stats")
        host.run(*RAY, "start", *options, *common, timeout=180)

    def close(self) -> None:
        """Ends everything."""
        self.hosts.close()

    def __enter__(self) -> "RayHosts":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
