"""A real sweep of digits on a Ray cluster of several hosts, and whether it ended as an undisturbed one does."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ray_hosts import PYTHON, RayHosts

PATIENCE = 300.0  # seconds without any progress, after which the sweep counts as hanging


def sweep_values(trials: int, iterations: int, concurrent: int | str = 2) -> dict[str, Any]:
    """A sweep of digits whose trials differ in every searched setting; all but the last two are given."""
    points = [
        {"images_per_class": 1 + i % 2, "steps": 1 + i % 3, "inner_lr": 0.05 * (1 + i), "outer_lr": 0.01 * (1 + i)}
        for i in range(trials - 2)
    ]
    return {
        "name": "chaos",
        "base": {
            "dataset": "digits",
            "network": "lenet",
            "weights": "fixed",
            "network.init": "kaiming",
            "eval_every": 10,
            "choice.steps": 3,
        },
        "search": {
            "images_per_class": {"int": [1, 2]},
            "steps": {"int": [1, 3]},
            "inner_lr": {"loguniform": [0.01, 1.0]},
            "outer_lr": {"loguniform": [0.005, 0.2]},
        },
        "known_good": points,
        "budget": {"trials": trials, "iterations": iterations, "concurrent": concurrent},
        "scheduler": "none",
        "resources": {"cpu": 1},
        "storage": "runs",
    }


@dataclass
class Sweep:
    """`raydistill sweep` on the head of a cluster, as a user types it, in the folder that all hosts share."""

    cluster: RayHosts
    values: dict[str, Any]
    driver: "subprocess.Popen[str] | None" = None
    starts: int = 0

    @property
    def folder(self) -> Path:
        """Where Tune and the trials write."""
        return self.cluster.shared / "runs" / str(self.values["name"])

    def start(self) -> None:
        """Begins the sweep, or goes on with it."""
        file = self.cluster.shared / f"{self.values['name']}.yaml"
        file.write_text(yaml.safe_dump(self.values))
        resume = ["--resume"] if self.starts else []
        self.starts += 1
        with open(self.log, "w") as log, open(self.log.with_suffix(".err"), "w") as err:
            self.driver = self.cluster.head.start(
                *(PYTHON, "-m", "raydistill.cli", "sweep", file, "--json", *resume),
                cwd=self.cluster.shared,
                env=self.cluster.env,
                stdout=log,
                stderr=err,
            )

    @property
    def log(self) -> Path:
        """What the newest driver prints."""
        return self.cluster.shared / f"{self.values['name']}-{self.starts}.log"

    def kill_driver(self) -> None:
        """SIGKILL."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()

    @property
    def over(self) -> bool:
        """Whether the driver has ended; AssertionError if it did not end well."""
        assert self.driver is not None
        code = self.driver.poll()
        assert code in (None, 0), f"the driver ended with {code}:\n{self.said()}"
        return code is not None

    def said(self) -> str:
        """The end of what the newest driver printed."""
        return "\n".join(f.read_text()[-3000:] for f in (self.log, self.log.with_suffix(".err")))

    def progress(self) -> dict[str, int]:
        """The iterations that each trial has in its newest whole checkpoint."""
        done: dict[str, int] = {}
        for manifest in self.folder.glob("trial-*/checkpoint_*/best.distilled/manifest.json"):
            try:
                iterations = int(json.loads(manifest.read_text())["metrics"]["iterations"])
            except (OSError, ValueError):  # being written, or deleted meanwhile
                continue
            name = manifest.parents[2].name
            done[name] = max(done.get(name, 0), iterations)
        return done

    def wait(self, iterations: float) -> bool:
        """Until the trials have so many iterations together (True), or the sweep is over."""
        best, changed = -1, time.monotonic()
        while not self.over:
            now = sum(self.progress().values())
            if now >= iterations:
                return True
            if now > best:
                best, changed = now, time.monotonic()
            assert time.monotonic() - changed < PATIENCE, f"no progress in {PATIENCE} s:\n{self.said()}"
            time.sleep(0.2)
        return False

    def trial_processes(self) -> list[int]:
        """The processes of the trials that run now."""
        return [pid for worker in self.cluster.workers for pid in worker.processes("ray::ResourceTrainable")]

    def summary(self) -> dict[str, Any]:
        """The JSON that the driver printed at its end."""
        summary: dict[str, Any] = json.loads(self.log.read_text().splitlines()[-1])
        return summary


def newest_artifacts(folder: Path) -> dict[str, Path]:
    """For each trial in a sweep's folder the artifact of its newest checkpoint."""
    return {trial.name: max(trial.glob("checkpoint_*")) / "best.distilled" for trial in folder.glob("trial-*")}


def differing_files(artifact: Path, alone: Path) -> list[str]:
    """The Arrow files that are not byte for byte the same in both."""
    names = sorted({file.name for folder in (artifact, alone) for file in folder.glob("*.arrow")})
    return [
        name
        for name in names
        if not all((folder / name).exists() for folder in (artifact, alone))
        or (artifact / name).read_bytes() != (alone / name).read_bytes()
    ]


def distilled_alone(config: Any, folder: Path) -> Path:
    """What `raydistill.distill` makes of a trial's settings on one thread, undisturbed."""
    import torch

    from raydistill.runs.distillation import distill
    from raydistill.store.artifact import save

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        save(distill(config), str(folder))
    finally:
        torch.set_num_threads(threads)
    return folder


def check(sweep: Sweep, folder: Path) -> list[dict[str, Any]]:
    """AssertionError unless the sweep ended as if nobody had disturbed it; a row for each trial.

    Args:
        sweep: that has ended.
        folder: for the undisturbed runs.
    """
    from raydistill.config.sweep_config import SweepConfig
    from raydistill.store.artifact import load

    config = SweepConfig(**sweep.values)
    trials, iterations = config.budget.trials, config.budget.iterations
    assert sweep.summary()["trials"] == trials
    artifacts = newest_artifacts(sweep.folder)
    assert len(artifacts) == trials, f"trials lost or begun twice: {sorted(artifacts)}"
    found = {name: load(str(path)) for name, path in artifacts.items()}
    searched = [a.provenance["searched"] for a in found.values()]
    for point in config.known_good:
        assert searched.count(point) == 1, f"{point} was tried {searched.count(point)} times"
    assert len({json.dumps(s, sort_keys=True) for s in searched}) == trials, "a point was tried twice"
    check_state(sweep.folder, artifacts)
    rows = []
    for name, artifact in found.items():
        assert artifact.config.iterations == artifact.metrics["iterations"] == iterations, name
        alone = distilled_alone(artifact.config, folder / name)
        differ = differing_files(artifacts[name], alone)
        assert not differ, f"{name}: {', '.join(differ)} differ from an undisturbed run's"
        same = {k: v for k, v in load(str(alone)).metrics.items() if k in ("val_accuracy", "best_iteration")}
        assert same.items() <= artifact.metrics.items(), name
        rows.append({"trial": name, "searched": artifact.provenance["searched"], **same})
    return rows


def check_state(folder: Path, trials: Iterable[str]) -> None:
    """AssertionError unless Tune knows these trials and no others, all ended, and so does Optuna."""
    import pickle

    newest = max(folder.glob("experiment_state-*.json"))
    states = [json.loads(trial) for trial, _ in json.loads(newest.read_text())["trial_data"]]
    assert Counter(state["status"] for state in states) == {"TERMINATED": len(states)}
    assert sorted(f"trial-{state['trial_id']}" for state in states) == sorted(trials)
    searcher = pickle.loads(max(folder.glob("searcher-state-*.pkl")).read_bytes())
    assert Counter(trial.state.name for trial in searcher["_ot_study"].trials) == {"COMPLETE": len(states)}
