"""Sweeps that go on after their driver died."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.tune.execution.tune_controller import TuneController
from small_sweep import same_as_undisturbed, sweep_config, wait_for_checkpoint

from raydistill.store.artifact import load
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.reporting.index import read_index
from raydistill.sweep.reporting.status import read_status
from raydistill.sweep.searching.trial import BEST
from raydistill.system.shell import typed


def test_resume_after_the_driver_was_killed_before_the_first_trial(local_ray, digits, tmp_path):
    config = sweep_config(tmp_path, budget={"trials": 1, "iterations": 2, "concurrent": 1}, scheduler="none")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tuner.pkl").write_bytes(b"cut off while it was wri")
    (tmp_path / "t" / "sweep.json").write_text(config.model_dump_json())
    assert len(run_sweep(config, data=digits, resume=True).trials) == 1


@pytest.mark.slow
def test_resume_after_the_driver_was_killed(digits, tmp_path):
    """SIGKILL in the middle; all trials end, none twice, the cut one bit-identical to an undisturbed run."""
    values = json.loads(sweep_config(tmp_path / "runs").model_dump_json(exclude={"search", "known_good", "scheduler"}))
    values |= {"search": {"inner_lr": {"loguniform": [0.01, 0.3]}}, "scheduler": "none"}
    values["budget"] = {"trials": 3, "iterations": 100, "concurrent": 1}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "raydistill.cli", "sweep", str(file), "--json"]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    folder = tmp_path / "runs" / "t"
    wait_for_checkpoint(driver, folder, "checkpoint_00000[1-9]")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    cut = len(list(folder.glob("trial-*")))
    assert cut < 3
    done = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["trials"] == 3
    assert len(list(folder.glob("trial-*"))) == 3
    for trial in folder.glob("trial-*"):
        [*_, newest] = sorted(trial.glob("checkpoint_*"))
        found = load(newest / BEST)
        assert same_as_undisturbed(found.config, newest / BEST, digits)
        assert found.config.iterations == 100
    assert os.path.exists(Path(summary["front"][0]["artifact"]) / "manifest.json")


@pytest.mark.slow
def test_a_signal_for_all_processes_of_the_command_ends_the_sweep_cleanly(tmp_path):
    """As `timeout` and batch systems send it: Ray's processes must live until the driver has kept what there is."""
    update = {"budget": {"trials": 1, "iterations": 100_000}, "scheduler": "none"}
    (tmp_path / "sweep.yaml").write_text(
        sweep_config(tmp_path / "runs", **update).model_dump_json(exclude={"scheduler"})
    )
    command = [sys.executable, "-m", "raydistill.cli", "sweep", "sweep.yaml"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    driver = subprocess.Popen(command, cwd=tmp_path, text=True, start_new_session=True, **pipes)
    folder = tmp_path / "runs" / "t"
    wait_for_checkpoint(driver, folder)
    os.killpg(driver.pid, signal.SIGTERM)
    said, _ = driver.communicate(timeout=100)
    assert (driver.returncode, read_status(str(folder)).state) == (130, "stopped"), said
    assert [row.status for row in read_index(str(folder)).rows] == ["PAUSED"]
    assert f"stopped; to resume: {typed('raydistill sweep --resume')} {folder}" in said


def test_a_trial_whose_end_was_decided_is_not_ended_earlier_after_a_resume(local_ray, digits, tmp_path, monkeypatch):
    """The driver dies while a trial makes its last checkpoint, and Tune's state says: after the next one it ends."""
    config = sweep_config(tmp_path, budget={"trials": 2, "iterations": 60, "concurrent": 1}, scheduler="none")
    kept = TuneController._process_trial_save

    def dies(controller, trial, checkpoint):
        if controller._cached_trial_decisions.get(trial.trial_id) == "STOP":
            controller.checkpoint(force=True, wait=True)
            raise OSError("the driver dies")
        kept(controller, trial, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(TuneController, "_process_trial_save", dies)
        with pytest.raises(Exception, match="the driver dies"):
            run_sweep(config, data=digits)
    assert [row.iterations for row in run_sweep(config, data=digits, resume=True).trials] == [60, 60]
