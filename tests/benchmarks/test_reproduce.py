"""The page of published numbers: it says what the runs' own JSON says."""

import json

import pytest
import reproduce

RESULT = {
    "test_accuracy_before": 0.1,
    "baseline_same_steps": 0.2,
    "num_images": 10,
    "nets": 1,
    "iterations": 50,
}


def kept(*accuracies, **more):
    results = [RESULT | {"test_accuracy": accuracy, "test_accuracy_std": 0.0} | more for accuracy in accuracies]
    where = {"date": "2026-01-01", "commit": "abc", "device": "an abacus", "torch": "2"}
    runs = [{"seed": seed, **where, "seconds": 10.0 * seed, "result": result} for seed, result in enumerate(results)]
    return {"settings": ["--set", "iterations=50"], "runs": runs}


def test_the_page_holds_the_median_run(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "KEPT", tmp_path)
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "mnist_fixed_10.json").write_text(json.dumps(kept(0.95, 0.91, 0.93)))
    lines = reproduce.page().splitlines()
    [row] = [line for line in lines if line.startswith("| mnist_fixed_10 |")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1] == "12.9 -> 93.8 (Wang et al. 2018)"
    assert cells[2:10] == ["93.0", "97.0", "4.0", "10.0", "20.0", "", "10", "1"]
    assert cells[10:] == ["95.0, 91.0, 93.0", "an abacus, torch 2", "10 s"]
    assert any("mnist_fixed_10.yaml --set iterations=50 --set seed=2" in line for line in lines)
    assert all("not run" in line for line in lines if line.startswith("| cifar10"))


def test_an_attack_is_told_by_the_attacked_class():
    published = reproduce.Published(metric="test_class_accuracy", value=0.07, aim=0.03, source="x")
    more = {"test_class_accuracy": 0.05, "test_class_accuracy_before": 0.8, "test_class_accuracy_std": 0.01}
    for name in ("attack_success", "other_accuracy"):
        more |= {f"test_{name}": 0.6, f"test_{name}_before": 0.3}
    cells, note = reproduce.measured("row", published, kept(0.7, **more))
    assert cells[:3] == ["5.0 ± 1.0", "2.0", "80.0"]
    assert "class_accuracy 80.0 -> 5.0; attack_success 30.0 -> 60.0" in note


def test_runs_with_other_seeds_stay_unless_the_settings_are_others(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "KEPT", tmp_path)
    monkeypatch.setattr(reproduce, "SWEEPS", tmp_path)
    monkeypatch.setattr(reproduce, "distilled", lambda arguments: {"said": arguments[-1]})
    for seeds, iterations, settings, after in (
        ([1], 10, [], [1]),
        ([0, 1], 10, [], [0, 1]),
        ([2], 20, [], [2]),
        ([3], 20, ["--set", "steps=1"], [3]),
    ):
        sweep = f"# {seeds}\nname: x\nsearch: {{steps: {{int: [1, 2]}}}}\nbudget: {{iterations: {iterations}}}\n"
        (tmp_path / "cpu").mkdir(exist_ok=True)
        (tmp_path / "cpu" / "x.yaml").write_text(sweep)
        reproduce.run_row("cpu/x", seeds, settings)
        runs = json.loads((tmp_path / "cpu" / "x.json").read_text())["runs"]
        assert [(run["seed"], run["result"]["said"]) for run in runs] == [(s, f"seed={s}") for s in after]


@pytest.mark.parametrize("more", [{}, {"stopped": 1}])
def test_a_run_that_was_stopped_is_no_result(tmp_path, monkeypatch, more):
    command = tmp_path / "python"
    command.write_text(f"#!/bin/sh\necho at work\necho '{json.dumps(RESULT | more | {'artifact': 'a'})}'\n")
    command.chmod(0o755)
    monkeypatch.setattr(reproduce.sys, "executable", str(command))
    if more:
        with pytest.raises(SystemExit, match="stopped after 50 iterations: nothing is kept"):
            reproduce.distilled(["distill"])
    else:
        assert reproduce.distilled(["distill"]) == RESULT
