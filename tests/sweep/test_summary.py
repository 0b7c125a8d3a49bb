"""What a sweep's command says at its end."""

from rich.console import Console
from small_sweep import sweep_config

from raydistill.artifact import save
from raydistill.run import Run
from raydistill.shell import typed
from raydistill.sweep.result import SweepResult
from raydistill.sweep.summary import print_summary


def test_trials_without_a_result_are_said(tmp_path, small, digits):
    run = Run(small, digits)
    run.advance()
    artifact = str(tmp_path / "best.distilled")
    save(run.artifact(), artifact)
    row = {
        "trial": "a",
        "config": {"steps": 2},
        "val_accuracy": 0.5,
        "num_images": 20,
        "iterations": 2,
        "seconds": 1.0,
        "diverged": False,
    }
    row |= {"artifact": artifact, "test_accuracy": 0.5, "baseline_random_real": 0.4}
    console = Console(record=True, width=200)
    print_summary(SweepResult(sweep_config(tmp_path), str(tmp_path), [row], [row]), console)
    said = console.export_text()
    assert (
        f"3 of 4 trials brought no result; to try them again: {typed('raydistill sweep --resume')} {tmp_path}" in said
    )
    assert (tmp_path / "front.png").read_bytes()[:4] == b"\x89PNG"
