"""The commands as a user types them, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import QUICK, last_json, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from raydistill.cli import app


def raydistill(*arguments, cwd, code=0):
    """Runs a command; returns what it printed (standard output, then errors)."""
    return "".join(run(*arguments, cwd=cwd, code=code))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    output = raydistill("distill", *QUICK, "--out", "one", "--json", cwd=folder)
    return folder, output


@pytest.mark.slow
def test_distill(run_folder):
    folder, output = run_folder
    result = last_json(output)
    wanted = "test_accuracy test_accuracy_std nets num_images artifact seconds iterations "
    wanted += "baseline_same_steps baseline_same_steps_std baseline_best_recipe baseline_best_recipe_std recipe network"
    assert set(wanted.split()) <= set(result)
    assert result["num_images"] == 10
    assert result["iterations"] == 6
    assert Path(folder, result["artifact"], "manifest.json").exists()
    assert f"raydistill show {result['artifact']}" in output
    assert "it/s" in output
    assert result["network"] == {"name": "lenet"}
    assert result["recipe"]["name"] in ("schedule", "adam")
    assert result["baseline_recipe"]["steps"] == 3
    assert "the best of 6 on validation, chosen in" in output
    assert "with as many steps" in output
    beaten = result["test_accuracy"] <= result["baseline_best_recipe"]
    assert ("the set does not beat random real images trained on by their best recipe" in output) == beaten


@pytest.mark.slow
def test_tensorboard_has_scalars_and_pictures(run_folder):
    events = EventAccumulator(str(run_folder[0] / "one"))
    events.Reload()
    assert {"loss", "val_accuracy", "iterations_per_second"} <= set(events.Tags()["scalars"])
    assert {"distilled images", "step sizes"} <= set(events.Tags()["images"])
    assert [e.step for e in events.Scalars("val_accuracy")] == [2, 4, 6]


@pytest.mark.slow
def test_show_draws_a_picture(run_folder):
    from PIL import Image

    folder, _ = run_folder
    result = last_json(raydistill("show", "one/best.distilled", "-o", "p/grid.png", "--json", cwd=folder))
    assert result["num_images"] == 10
    with Image.open(folder / "p" / "grid.png") as picture:
        assert picture.width > 500
        assert len(set(picture.convert("L").tobytes())) > 20  # not a blank page


@pytest.mark.slow
def test_evaluate_agrees_with_distill(run_folder):
    folder, output = run_folder
    result = last_json(raydistill("evaluate", "one/best.distilled", "--json", cwd=folder))
    assert result["test_accuracy"] == last_json(output)["test_accuracy"]
    assert result["baseline_same_steps"] == last_json(output)["baseline_same_steps"]
    other = last_json(
        raydistill("evaluate", "one/best.distilled", "--weights", "random", "--nets", "3", "--json", cwd=folder)
    )
    assert other["nets"] == 3
    assert other["test_accuracy_std"] > 0


BASELINES = ["random_real", "optimized_real", "k_means", "average"]


@pytest.mark.slow
def test_baselines_of_settings(tmp_path):
    (tmp_path / "my.yaml").write_text("weights: random\nepochs: 2\n")
    output = raydistill(
        "baselines", "my.yaml", "--set", "images_per_class=3", "--draws", "3", "--device", "cpu", "--json", cwd=tmp_path
    )
    result = last_json(output)
    assert list(result["baselines"]) == BASELINES
    for row in result["baselines"].values():
        assert set(row) == {"gradient", "knn"}
        assert set(row["gradient"]) == {"accuracy", "accuracy_std", "nets", "rate"}
        assert set(row["knn"]) == {"accuracy", "accuracy_std", "k"}
        assert row["gradient"]["nets"] == 3
    assert (result["num_images"], result["dataset"], result["network"]) == (30, "digits", {"name": "lenet"})
    assert result["seconds"] > 0
    assert result["baselines"]["k_means"]["knn"]["accuracy"] > 0.8
    assert "k means" in output
    assert "gradient steps: 2" in output


@pytest.mark.slow
def test_baselines_of_an_artifact(run_folder):
    folder, output = run_folder
    printed = raydistill("baselines", "one/best.distilled", "--draws", "8", "--json", cwd=folder)
    rows = last_json(printed)["baselines"]
    assert list(rows) == ["distilled", *BASELINES]
    assert rows["distilled"]["gradient"]["accuracy"] == last_json(output)["test_accuracy"]
    assert rows["distilled"]["gradient"]["rate"] == last_json(output)["recipe"].get("lr")
    assert rows["random_real"]["gradient"]["accuracy"] == last_json(output)["baseline_same_steps"]
    assert ("learned" in printed) == (last_json(output)["recipe"]["name"] == "schedule")


@pytest.mark.slow
def test_evaluate_by_another_recipe(run_folder):
    folder, _ = run_folder
    command = ("evaluate", "one/best.distilled", "--recipe", "adam", "--set", "recipe.steps=7", "--json")
    result = last_json(raydistill(*command, "--set", "recipe.lr=0.01", cwd=folder))
    assert (result["recipe"]["name"], result["recipe"]["lr"], result["grad_steps"]) == ("adam", 0.01, 7)
    printed = raydistill(*command[:6], "--recipe", "schedule", "--epochs", "5", cwd=folder, code=2)
    assert "recipe.steps: there is no such setting with recipe=schedule" in printed
    schedule = raydistill(*command[:2], "--recipe", "schedule", "--epochs", "5", cwd=folder)
    assert "recipe: the learned schedule, 5 gradient steps" in schedule


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--recipe", "adam", "--epochs", "5"],
            "epochs=5: is for recipe=schedule, not adam, whose length is recipe.steps",
        ),
        (["--recipe", "lamb"], "recipe: should be auto, schedule, adam or sgd, not 'lamb'"),
        (["--set", "steps=3"], "--set steps=3: evaluate takes settings of the recipe, as recipe.lr=0.01"),
        (["--recipe", "sgd", "--set", "recipe.momentum=1"], "recipe.momentum: "),
        (["--recipe", "adam", "--set", "recipe.augment.shift=3"], "recipe.augment.shift=3: is more than a quarter"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_one_line(run_folder, options, words):
    printed = raydistill("evaluate", "one/best.distilled", *options, cwd=run_folder[0], code=2)
    assert words in printed
    assert len(printed.strip().splitlines()) == 1


def test_too_little_memory_of_a_gpu_is_one_line(capsys):
    import torch
    import typer

    from raydistill.commands.screen import one_line_errors

    with pytest.raises(typer.Exit) as ended, one_line_errors(False):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nand more")
    assert ended.value.exit_code == 2
    said = capsys.readouterr().err
    assert "one GPU has too little memory; smaller sets or batches" in said
    assert "9 GiB" in said
    assert "and more" not in said
    with pytest.raises(RuntimeError, match="something else"), one_line_errors(False):
        raise RuntimeError("something else")


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_an_artifact(tmp_path):
    command = [sys.executable, "-m", "raydistill.cli", "distill", *QUICK, "--set", "iterations=100000"]
    command += ["--set", "eval_every=5", "--out", "long", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "10/100000" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"stopped at iteration {last_json(output)['iterations']} of 100000; to resume:" in output
    assert "raydistill distill --resume long\n" in output
    stopped = last_json(output)
    assert stopped["stopped"] == 1
    assert (tmp_path / stopped["artifact"] / "manifest.json").exists()
    again = subprocess.Popen([*command[:4], "--resume", "long"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with again:
        first = next(line for line in again.stdout if "/100000" in line)
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=120)
    assert int(first.split("/")[0]) > stopped["iterations"]


SWEEP = "name: t\nsearch: {steps: {int: [1, 2]}}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distill", "--set", "stepz=3"], ["stepz", "no such setting"]),
        (["distill", "--set", "steps=many"], ["steps", "integer", "'many'"]),
        (["distill", "--set", "train_nets=2"], ["train_nets=2 needs weights=random"]),
        (["distill", "--set", "dataset=parquet:none.parquet"], ["none.parquet", "no such file"]),
        (["distill", "--set", "dataset=folder:empty"], ["empty", "folder for each class"]),
        (["distill", "--set", "network=convnet", "--set", "network.depth=5"], ["convnet", "8x8", "depth 5"]),
        (["distill", "none.yaml"], ["none.yaml", "no such file"]),
        (["distill", "--resume", "none"], ["none", "no run to resume"]),
        (["distill", "--out", "full"], ["full", "--resume full"]),
        (["distill", "--out", "sweep.yaml"], ["sweep.yaml"]),
        (["distill", "--set", "device=cuda:9"], ["device=cuda:9", "auto or cpu"]),
        (["evaluate", "none.distilled"], ["none.distilled", "manifest.json"]),
        (["baselines", "none.distilled"], ["none.distilled", "manifest.json"]),
        (["baselines", "empty"], ["empty", "manifest.json"]),
        (["baselines", "none.yaml"], ["none.yaml", "no such file"]),
        (["baselines", "sweep.yaml"], ["name", "no such setting"]),
        (["baselines", "none.distilled", "--set", "steps=2"], ["--set steps=2", "its own settings"]),
        (["baselines", "--draws", "0"], ["draws=0", "at least 1"]),
        (["baselines", "--device", "cuda:9"], ["device=cuda:9", "auto or cpu"]),
        (["baselines", "--set", "network=resnet"], ["network: should be lenet", "not 'resnet'"]),
        (["show", "none.distilled"], ["none.distilled", "manifest.json"]),
        (["sweep", "none.yaml"], ["none.yaml", "no such file"]),
        (["sweep", "sweep.yaml", "--set", "search.steps.int=[2, 1]"], ["search.steps", "low 2 is above high 1"]),
        (["sweep", "sweep.yaml", "--set", "base.network=resnet"], ["network: should be lenet, alexcifarnet, convnet"]),
        (["sweep", "sweep.yaml", "--resume"], ["runs/t", "no sweep to resume"]),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    result = CliRunner().invoke(app, arguments)  # in this process: starting 20 takes minutes
    output = result.output
    assert result.exit_code == 2, output
    assert output.startswith("error: ")
    assert len(output.strip().splitlines()) == 1, output
    for word in words:
        assert word in output
    assert sorted(p.name for p in tmp_path.rglob("*")) == before  # nothing half-written


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "raydistill.cli", "show", "none.distilled"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: none.distilled")


@pytest.mark.slow
def test_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-m", "raydistill.cli", "show", "none.distilled", "--debug"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UserError" in done.stderr


def test_help_loads_neither_torch_nor_ray():
    script = (
        "import sys, raydistill.cli; print([m for m in ('torch', 'ray', 'optuna', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


@pytest.mark.slow
def test_the_method_needs_no_ray_and_loads_no_torchvision():
    script = """
import sys
sys.modules["ray"] = sys.modules["optuna"] = sys.modules["torchvision"] = None
import raydistill, raydistill.method, raydistill.data, raydistill.networks, raydistill.evaluation.accuracy
from raydistill import DistillConfig, DistilledSet, distill, evaluate, load, save
assert callable(evaluate) and callable(distill), evaluate
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"TIME": str(time.time())})


def test_next_commands_are_typed_as_this_one_was(monkeypatch):
    from raydistill.system.shell import typed

    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert typed("raydistill show a") == "raydistill show a"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")  # set by uv run
    assert typed("raydistill show a") == "uv run raydistill show a"


@pytest.mark.slow
def test_pretrain_then_attack_and_test_on_the_bank(tmp_path):
    settings = ["--set", "dataset=digits", "--set", "nets=5", "--set", "chunk=5", "--set", "epochs=3"]
    result = last_json(raydistill("pretrain", *settings, "--out", "bank", "--json", cwd=tmp_path))
    assert result["nets"] == 5
    assert 0 < result["test_accuracy"] <= 1
    assert result["bank"] == "bank"
    again = last_json(raydistill("pretrain", *settings, "--out", "bank", "--json", cwd=tmp_path))
    assert again["test_accuracy"] == result["test_accuracy"]

    nets = ["--set", "weights=random_pretrained", "--set", "bank=bank", "--set", "val_nets=1", "--set", "test_nets=2"]
    attack = ["--set", "objective=attack", "--set", "objective.attacked=7", "--set", "objective.target=1"]
    output = raydistill("distill", *QUICK, *nets, *attack, "--out", "run", "--json", cwd=tmp_path)
    metrics = last_json(output)
    assert {"test_class_accuracy", "test_attack_success_before", "test_other_accuracy"} <= set(metrics)
    assert "the attacked class is recognised" in output
    tested = last_json(raydistill("evaluate", "run/best.distilled", "--json", cwd=tmp_path))
    assert tested["test_attack_success"] == metrics["test_attack_success"]
    more = last_json(raydistill("evaluate", "run/best.distilled", "--epochs", "5", "--json", cwd=tmp_path))
    assert more["test_accuracy_before"] == tested["test_accuracy_before"]
    other = raydistill("evaluate", "run/best.distilled", "--bank", "nowhere", cwd=tmp_path, code=2)
    assert "bank=nowhere: is no bank" in other


@pytest.mark.slow
def test_one_run_of_a_sweeps_file(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "name: s\nbase: {dataset: digits, eval_every: 2}\nsearch: {steps: {int: [1, 2]}}\n"
        "known_good: [{steps: 2}]\nbudget: {iterations: 4}\n"
    )
    result = last_json(raydistill("distill", "s.yaml", "--set", "batch_size=32", "--json", cwd=tmp_path))
    assert result["num_images"] == 20
    assert result["iterations"] == 4
