"""Sweeps whose trials share a GPU: one is killed, one wants too much memory, and the share that is found by itself."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.store.artifact import load

pytest.importorskip("ray", reason="needs Ray")
pytest.importorskip("optuna", reason="needs Optuna")
pytestmark = pytest.mark.gpu

PATIENCE = 300  # seconds, on a slow machine
QUICK = {"dataset": "digits", "choice.steps": 10, "batch_size": 32, "eval_every": 10}


def values(folder, device, gpu, **update):
    """A sweep of digits with trials of that share of a GPU; on a CPU, to try the test, without."""
    on_gpu = device.type == "cuda"
    common = {
        "name": "t",
        "base": QUICK | ({} if on_gpu else {"device": "cpu"}),
        "search": {"steps": {"int": [1, 2]}, "inner_lr": {"loguniform": [0.01, 0.3]}},
        "budget": {"trials": 4, "iterations": 200, "concurrent": 4},
        "scheduler": "none",
        "resources": {"cpu": 1 if on_gpu else 0.25, "gpu": gpu if on_gpu else 0},
        "storage": str(folder),
    }
    return common | update


def trial_processes(driver):
    """The processes of the trials that descend from this one, by the name that Ray gives them."""
    parents, trials = {}, []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if (place / "cmdline").read_bytes().startswith(b"ray::ResourceTrainable"):
                trials.append(int(place.name))

    def descends(process):
        return process == driver or (process in parents and descends(parents[process]))

    return [trial for trial in trials if descends(trial)]


def test_a_killed_trial_goes_on_and_all_four_are_whole(device, tmp_path):
    """As a user types it; the process dies with its memory of the GPU in the middle of a trial."""
    from small_sweep import wait_for_checkpoint

    update = {"budget": {"trials": 4, "iterations": 1000 if device.type == "cuda" else 200, "concurrent": 4}}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(values(tmp_path, device, 0.25, **update)))
    arguments = [sys.executable, "-m", "raydistill.cli", "sweep", str(file), "--json"]
    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(arguments, stdout=said, stderr=subprocess.STDOUT)
    try:
        wait_for_checkpoint(driver, tmp_path / "t")
        os.kill(trial_processes(driver.pid)[0], signal.SIGKILL)
        assert driver.wait(PATIENCE) == 0, (tmp_path / "said").read_text()[-3000:]
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGTERM)
            driver.wait(60)
    text = (tmp_path / "said").read_text()
    assert "was cut off after iteration" in text, text[-3000:]
    assert json.loads(text.splitlines()[-1])["trials"] == 4
    for trial in (tmp_path / "t").glob("trial-*"):
        newest = max(trial.glob("checkpoint_*"))
        assert load(newest / "best.distilled").metrics["iterations"] == update["budget"]["iterations"]


@pytest.fixture
def said(caplog):
    """A console that keeps what it prints, and what the sweep logged."""
    from rich.console import Console

    console = Console(record=True, width=400, force_terminal=False)
    console.everything = lambda: console.export_text(clear=False) + "\n".join(caplog.messages)  # type: ignore[attr-defined]
    return console


def test_a_trial_that_wants_too_much_memory_is_one_line(cuda, local_ray, digits, tmp_path, said):
    """The others go on, also those that come to its process."""
    from raydistill.sweep.driver import run_sweep
    from raydistill.sweep.reporting.index import read_index

    base = QUICK | {"weights": "random", "batch_size": 4096, "val_nets": 2, "test_nets": 2}
    search = {"train_nets": {"choice": [1, 4096]}, "inner_lr": {"loguniform": [0.01, 0.3]}}
    points = [{"train_nets": nets, "inner_lr": 0.1 + i / 100} for i, nets in enumerate((1, 4096, 1, 1))]
    budget = {"trials": 4, "iterations": 40, "concurrent": 2}
    update = {"base": base, "search": search, "known_good": points, "budget": budget}
    config = validated(SweepConfig, values(tmp_path, cuda, 0.1, **update))
    run_sweep(config, data=digits, console=said)
    rows = read_index(str(tmp_path / "t")).rows
    assert Counter((row.config["train_nets"], row.status) for row in rows) == {(1, "TERMINATED"): 3, (4096, "ERROR"): 1}
    lines = [line for line in said.everything().splitlines() if "resources.gpu=0.1" in line]
    assert lines, said.everything()[-3000:]
    assert "Traceback" not in said.everything()


def test_auto_finds_the_share(cuda, local_ray, digits, tmp_path, said):
    from raydistill.sweep.driver import run_sweep

    update = {"budget": {"trials": 2, "iterations": 40}}
    result = run_sweep(validated(SweepConfig, values(tmp_path, cuda, "auto", **update)), data=digits, console=said)
    assert [row.iterations for row in result.trials] == [40, 40]
    assert "GPU" in said.everything(), said.everything()[-3000:]
