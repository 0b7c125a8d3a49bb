"""Whole runs on a GPU: banks, evaluation, baselines, the commands, TensorBoard's files."""

import json
import subprocess
import sys

import pytest
import torch
from made_up import made_up_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydistill import evaluate, load
from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.evaluation.comparison import compare
from raydistill.method.rng import named_generator
from raydistill.runs.distillation import distill
from raydistill.runs.pretraining import BankTrainer, pretrain
from raydistill.store.bank import load_bank

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")
QUICK = {"network.init": "kaiming", "outer_lr": 0.03, "batch_size": 128, "choice.steps": 10}
RANDOM = {"weights": "random", "train_nets": 2, "val_nets": 4, "test_nets": 8}


def command(*arguments, timeout=120):
    done = subprocess.run(
        [sys.executable, "-m", "raydistill.cli", *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(device, tmp_path_factory):
    """A folder in which the command distilled digits on the GPU, and what it printed."""
    folder = tmp_path_factory.mktemp("run") / "run"
    settings = {"dataset": "digits", "device": device, "iterations": 120, "eval_every": 40, **QUICK}
    said = command("distill", *(f"--set={name}={value}" for name, value in settings.items()), "--out", folder, "--json")
    return folder, said


def test_a_run_learns_and_says_where_it_computes(run, device):
    folder, said = run
    assert f"on {device.type}" in said
    result = json.loads(said.splitlines()[-1])
    assert result["test_accuracy"] > result["test_accuracy_before"] + 0.2
    assert load(folder / "best.distilled").metrics["iterations"] == 120


def test_tensorboards_files_can_be_read(run):
    folder, _ = run
    events = EventAccumulator(str(next(folder.rglob("events.out.tfevents*")).parent))
    events.Reload()
    assert {"loss", "val_accuracy"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [40, 80, 120]
    assert "distilled images" in events.Tags()["images"]


def test_an_evaluation_is_that_of_the_cpu(run, device, digits, report):
    artifact, rows = load(run[0] / "best.distilled"), []
    for weights, nets in (("fixed", 1), ("random", 8)):
        there, here = (
            evaluate(artifact, weights=weights, nets=nets, device=str(where), data=digits) for where in (device, CPU)
        )
        images = abs(there.accuracy - here.accuracy) * len(digits.test)
        rows.append([weights, images, abs(there.loss - here.loss) / here.loss])
    report("Evaluation on GPU and CPU", ("weights", "images, mean of the networks", "loss"), rows)
    assert all(images < 2 and loss < 1e-3 for _, images, loss in rows)


def test_baselines_are_close_to_those_of_the_cpu(device, digits, report):
    """The devices draw other random images, so only means are alike."""
    config = DistillConfig(**RANDOM)
    there, here = (compare(config, draws=4, device=str(where), data=digits).rows for where in (device, CPU))
    rows = [
        [name, there[name].gradient.accuracy, row.gradient.accuracy, there[name].knn.accuracy, row.knn.accuracy]
        for name, row in here.items()
    ]
    report("Baselines", ("", "gradient, GPU", "gradient, CPU", "neighbours, GPU", "neighbours, CPU"), rows)
    for name, *accuracies in rows:
        assert all(0.05 < accuracy <= 1 for accuracy in accuracies), name
        assert abs(accuracies[2] - accuracies[3]) < (0.02 if name == "average" else 0.2), name


def test_a_bank_is_trained_as_on_the_cpu(device, digits, tmp_path, report):
    """The gradients are the CPU's; orders of images are the device's own, so networks are alike only in accuracy."""
    config = PretrainConfig(nets=6, chunk=3, epochs=3, batch_size=64, lr=3e-3, device=str(device))
    trainers = [BankTrainer(config.model_copy(update={"device": str(where)}), digits) for where in (device, CPU)]
    weights = trainers[1].network.initial_weights(3, named_generator(0, "bank"))
    images, labels = digits.train.images[:96].unflatten(0, (3, 32)), digits.train.labels[:96].view(3, 32)
    (_, mine), (_, right) = (t.gradient(*(x.to(t.device) for x in (weights, images, labels))) for t in trainers)
    off = ((mine.cpu() - right).norm() / right.norm()).item()
    accuracies = []
    for where in (device, CPU):
        folder = tmp_path / where.type
        pretrain(config.model_copy(update={"device": str(where)}), folder, data=digits)
        accuracies.append(load_bank(folder).manifest.metrics["test_accuracy"])
    report("A bank", ("gradient off by", "accuracy, GPU", "accuracy, CPU"), [[off, *accuracies]])
    assert off < 1e-3
    assert abs(accuracies[0] - accuracies[1]) < 0.1
    assert min(accuracies) > 0.4


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_less_precise_arithmetic_learns(precision, cuda, digits):
    config = DistillConfig(precision=precision, iterations=120, eval_every=120, device=str(cuda), **QUICK)
    metrics = distill(config, data=digits).metrics
    assert metrics["test_accuracy"] > metrics["test_accuracy_before"] + 0.2


def test_distilling_with_a_bank(device, tmp_path):
    """From pretrained networks, of data that lie on the GPU already."""
    data = made_up_data((1, 12, 12), device)
    pretrain(PretrainConfig(nets=8, epochs=2, batch_size=32, device=str(device)), tmp_path, data=data)
    start = {"bank": str(tmp_path), "train_nets": 2, "val_nets": 2, "test_nets": 2}
    config = DistillConfig(weights="random_pretrained", **start, iterations=8, eval_every=4, device=str(device))
    assert distill(config, data=data).metrics["nets"] == 2


def test_doctor_finds_nothing_wrong(cuda):
    from raydistill.cli import app

    if not any("doctor" in (known.name, known.callback.__name__) for known in app.registered_commands):
        pytest.skip("there is no such command yet")
    assert "cuda" in command("doctor", timeout=150).lower()
