"""What a sweep's command says at its end."""

import json
from dataclasses import replace

import pytest
from rich.console import Console
from small_sweep import sweep_config
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.runs.run import Run
from raydistill.store.artifact import load, save
from raydistill.sweep.reporting.result import SweepResult
from raydistill.sweep.reporting.summary import print_summary
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.shell import typed


@pytest.fixture
def row(tmp_path, small, digits):
    run = Run(small, digits)
    run.advance()
    artifact = str(tmp_path / "best.distilled")
    save(run.artifact(), artifact)
    measured = {"val_accuracy": 0.5, "num_images": 20, "iterations": 2, "seconds": 1.0, "diverged": False}
    return TrialRow("a", "TERMINATED", {"steps": 2}, artifact=artifact, **measured)


def said(tmp_path, rows, **budget):
    config = sweep_config(tmp_path, budget={"iterations": 6, **budget})
    console = Console(record=True, width=200)
    artifacts = {row.trial: load(row.artifact) for row in rows}
    print_summary(SweepResult(config, str(tmp_path), rows, rows, artifacts), console)
    return console.export_text()


@pytest.mark.slow
def test_trials_without_a_result_are_said(tmp_path, row):
    text = said(
        tmp_path,
        [replace(row, tested={"test_accuracy": 0.5, "baseline_same_steps": 0.4, "baseline_best_recipe": 0.6})],
        trials=4,
    )
    assert (
        f"3 of 4 trials brought no result; to try them again: {typed('raydistill sweep --resume')} {tmp_path}" in text
    )
    assert "a does not beat random real images trained on by their best recipe" in text
    assert "num_images min; lenet" in text
    assert (tmp_path / "front.png").read_bytes()[:4] == b"\x89PNG"


def test_a_set_that_could_not_be_tested_is_said(tmp_path, row):
    tested = replace(
        row, trial="b", tested={"test_accuracy": 0.25, "baseline_same_steps": 0.125, "baseline_best_recipe": 0.2}
    )
    text = said(tmp_path, [replace(row, test_error="its GPU has too little memory"), tested], trials=2)
    assert "does not beat" not in text
    assert "25.0%" in text  # the other keeps its column
    again = f"{typed('raydistill sweep --resume')} {tmp_path}"
    assert f"1 of 2 sets of the front could not be tested; to test them again: {again}" in text


def test_a_sweep_of_which_a_trial_failed_for_good_ends_with_code_1(local_ray, tmp_path, monkeypatch):
    """Its results are whole all the same; going on tries the trial again."""
    monkeypatch.chdir(tmp_path)
    too_many = 10**9  # of images: torch refuses so much memory at once
    update = {
        "search": {"images_per_class": {"choice": [1, too_many]}},
        "known_good": [{"images_per_class": 1}, {"images_per_class": too_many}],
        "budget": {"trials": 2, "iterations": 4, "concurrent": 1, "failures": 0},
    }
    (tmp_path / "sweep.yaml").write_text(
        sweep_config("runs", scheduler="none", **update).model_dump_json(exclude={"scheduler"})
    )
    for command in (["sweep.yaml"], ["--resume", "runs/t"]):
        done = CliRunner().invoke(app, ["sweep", *command, "--json"])
        assert done.exit_code == 1, done.output
        summary = json.loads(done.output.splitlines()[-1])
        assert (summary["trials"], summary["failed"], summary["stopped"]) == (1, 1, False)
        [row] = summary["front"]
        assert row["test_accuracy"] > 0
        assert (tmp_path / row["artifact"] / "manifest.json").exists()
        assert "1 of 2 trials failed" in done.output
        assert "raydistill sweep --resume runs/t" in done.output
