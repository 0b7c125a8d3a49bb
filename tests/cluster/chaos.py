"""Chaos: processes of a sweep, its driver and whole hosts are killed at random.

    python tests/cluster/chaos.py --kills 21 --out benchmarks/results/DATE-chaos.md

makes a long run by itself and writes a table of it.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hosts import wait_until
from ray_hosts import RayHosts
from sweeping import PATIENCE, Sweep, check, sweep_values

KINDS = ("trial", "driver", "host")


@dataclass
class Chaos:
    """Kills at random: when the trials together have done random shares of their work, and then some more time.

    Args:
        sweep: which sweep.
        kills: how many.
        seed: of what is killed, and when.
    """

    sweep: Sweep
    kills: int
    seed: int
    log: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Begins the sweep, kills, and waits for its end."""
        rng = random.Random(self.seed)
        kinds = [KINDS[i % len(KINDS)] for i in range(self.kills)]
        rng.shuffle(kinds)
        budget = self.sweep.values["budget"]
        work = budget["trials"] * budget["iterations"]
        moments = sorted(rng.uniform(0.03, 0.75) * work for _ in range(self.kills))
        self.sweep.start()
        begin = time.monotonic()
        for kind, moment in zip(kinds, moments, strict=True):
            assert self.sweep.wait(moment), f"the sweep ended after {len(self.log)} kills"
            time.sleep(rng.uniform(0, 0.5))
            what = self._kill(kind, rng)
            done = sum(self.sweep.progress().values())
            self.log.append({"seconds": time.monotonic() - begin, "kind": kind, "what": what, "iterations": done})
            print(self.log[-1], flush=True)
        assert not self.sweep.wait(float("inf"))

    def _kill(self, kind: str, rng: random.Random) -> str:
        sweep, cluster = self.sweep, self.sweep.cluster
        if kind == "driver":
            sweep.kill_driver()
            sweep.start()
            return f"driver {sweep.starts - 1}"
        if kind == "host":
            host = rng.choice(cluster.workers)
            cluster.lose_worker(host)
            return f"{host.name}, {cluster.add_worker().name} joins"
        wait_until(sweep.trial_processes, PATIENCE, "a trial that runs")
        pid = rng.choice(sweep.trial_processes())
        os.kill(pid, signal.SIGKILL)
        return "a trial's process"


def table(chaos: Chaos, rows: list[dict[str, Any]], seconds: float, command: str) -> str:
    """The report of a run, as markdown."""
    kinds = Counter(kill["kind"] for kill in chaos.log)
    budget = chaos.sweep.values["budget"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "optuna"))
    lines = [
        "# Chaos",
        "",
        f"    {command}",
        "",
        f"{date.today()}, cores: {len(os.sched_getaffinity(0))}, {versions}. Three hosts on one machine (namespaces; "
        f"a head and two workers of {chaos.sweep.cluster.cpus} core), digits, {budget['trials']} trials of "
        f"{budget['iterations']} iterations, seed {chaos.seed}.",
        "",
        f"{len(chaos.log)} kills in {seconds:.0f} s: {kinds['trial']} of a trial's process, {kinds['driver']} of the "
        f"driver (then `--resume`), {kinds['host']} of a whole host (then another joins). {len(rows)} trials, none "
        "lost or twice; images.arrow, schedule.arrow and weights.arrow of each are byte for byte those of "
        "`raydistill.distill` with the same settings.",
        "",
        "| after, s | killed | iterations of all trials, kept in checkpoints |",
        "|---|---|---|",
        *(f"| {kill['seconds']:.0f} | {kill['what']} | {kill['iterations']} |" for kill in chaos.log),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """One run, with its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=21)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the report")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, RayHosts(Path(folder) / "cluster") as cluster:
        chaos = Chaos(Sweep(cluster, sweep_values(given.trials, given.iterations)), given.kills, given.seed)
        begin = time.monotonic()
        chaos.run()
        seconds = time.monotonic() - begin
        rows = check(chaos.sweep, Path(folder) / "alone")
    options = f"--kills {given.kills} --trials {given.trials} --iterations {given.iterations} --seed {given.seed}"
    report = table(chaos, rows, seconds, f"python tests/cluster/chaos.py {options}")
    print(report)
    if given.out is not None:
        given.out.write_text(report)


if __name__ == "__main__":
    main()
