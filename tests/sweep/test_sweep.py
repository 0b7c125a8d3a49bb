"""Trials and sweeps on a real local Ray."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from ray import tune
from small_sweep import BASE, same_as_undisturbed, sweep_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raydistill.config.distill_config import DistillConfig
from raydistill.runs.distillation import distill
from raydistill.store.artifact import load
from raydistill.store.checkpoint import CHECKPOINT
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.reporting import final_test
from raydistill.sweep.searching.trial import BEST, DistillTrial
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.system.errors import UserError


def trial_class(digits, **base):
    inputs = TrialInputs(BASE | {"iterations": 10} | base, digits.to_numpy(), bank=None, threads=1.0)
    return tune.with_parameters(DistillTrial, inputs=inputs)


def test_validate_save_restore(local_ray, digits):
    assert tune.utils.validate_save_restore(trial_class(digits), config={"steps": 2})


@pytest.mark.slow
def test_a_restored_trial_goes_on_bit_identically(digits, tmp_path):
    make = trial_class(digits)
    whole, first, second = (make(config={"steps": 2}) for _ in range(3))
    for _ in range(5):
        last = whole.train()
    for _ in range(2):
        first.train()
    first.save_checkpoint(str(tmp_path))
    second.reset_config({"steps": 1})  # the actor did something else before
    second.train()
    second.reset_config({"steps": 2})
    second.load_checkpoint(str(tmp_path))
    for _ in range(3):
        again = second.train()
    assert last["done"]
    assert again["done"]
    assert again["val_accuracy"] == last["val_accuracy"]
    assert torch.equal(whole.run.distiller.learned.images, second.run.distiller.learned.images)
    assert load(tmp_path / BEST).distilled.num_images == 20  # each checkpoint holds the artifact
    for trial in (whole, first, second):
        trial.stop()


def test_checkpoints_take_a_small_share_of_the_time(digits, monkeypatch):
    """A clock on which a step lasts 1 s and a checkpoint 0.125 s: one is due 6.25 s after the last."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(sys.modules[DistillTrial.__module__], "time", clock)
    monkeypatch.setattr(DistillTrial, "_advance", lambda self: setattr(clock, "now", clock.now + 1) or {})
    trial = trial_class(digits)(config={"steps": 2})
    asked = []
    for step in range(20):
        if trial.step()["should_checkpoint"]:
            asked.append(step)
            clock.now += 0.125
    assert asked == [0, 7, 14]
    trial.stop()


def test_a_trial_puts_searched_settings_into_sections(digits):
    searched = {"labels.lr": 0.05, "network": "convnet", "network.width": 4, "network.depth": 1}
    trial = trial_class(digits, labels="softmax", **{"network.init": "kaiming"})(config=searched)
    config = trial.run.config
    trial.stop()
    assert (config.labels.learned, config.labels.lr) == ("softmax", 0.05)
    assert (config.network.name, config.network.width, config.network.init.name) == ("convnet", 4, "kaiming")


def test_divergence_is_a_finite_worst_value(digits):
    trial = trial_class(digits, inner_lr=1e30, **{"outer.clip": None})(config={"steps": 1})
    result = trial.train()
    trial.stop()
    assert result["done"]
    assert result["diverged"] == 1
    assert result["val_accuracy"] == 0
    assert all(math.isfinite(v) for v in result.values() if isinstance(v, float))


@pytest.fixture(scope="module")
def finished(local_ray, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    config = sweep_config(folder)
    return config, run_sweep(config, data=digits), folder / "t"


def test_sweep_runs_all_trials_and_finds_the_front(finished):
    config, result, folder = finished
    assert len(result.trials) == config.budget.trials
    assert {row.num_images for row in result.trials} <= {10, 20}
    assert all(6 >= row.iterations >= 2 for row in result.trials)
    assert any(row.config == {"steps": 1, "inner_lr": 0.1} for row in result.trials)
    best = max(row.val_accuracy for row in result.trials)
    assert max(row.val_accuracy for row in result.front) == best
    for row in result.front:
        assert row.artifact.startswith(str(folder / "front"))
        artifact = load(row.artifact)
        assert artifact.metrics["val_accuracy"] == row.val_accuracy
        assert artifact.distilled.num_images == row.num_images
        assert artifact.provenance["trial"] == row.trial
    summary = result.to_json()
    assert set(summary) == {"name", "storage", "trials", "failed", "stopped", "front"}
    keys = "trial val_accuracy test_accuracy baseline_same_steps baseline_best_recipe num_images artifact config "
    keys += "recipe network"
    assert set(summary["front"][0]) == set(keys.split())
    json.dumps(summary, allow_nan=False)


def test_a_sweep_of_populations(local_ray, digits, tmp_path):
    """A trial counts as its best member, under that member's learning rates."""
    config = sweep_config(
        tmp_path,
        base=BASE | {"population": {"size": 3, "spread": 2.0}},
        search={"inner_lr": {"loguniform": [0.001, 3.0]}},
        known_good=[],
        budget={"trials": 2, "iterations": 6},
        scheduler="none",
    )
    result = run_sweep(config, data=digits)
    assert len(result.trials) == 2
    for row in result.front:
        artifact = load(row.artifact)
        member = artifact.provenance["member"]
        assert row.config == {"inner_lr": member["inner_lr"]}
        assert row.val_accuracy == member["val_accuracy"] == artifact.metrics["val_accuracy"]


def test_a_trial_is_the_same_as_distill(finished, digits):
    _, result, _ = finished
    row = next(row for row in result.front if row.iterations == 6)
    config = DistillConfig(**BASE, **row.config, iterations=6)
    assert same_as_undisturbed(config, row.artifact, digits)


def test_every_stopped_trial_kept_its_best_images(finished):
    _, result, folder = finished
    for row in result.trials:
        found = list((folder / f"trial-{row.trial}").glob(f"checkpoint_*/{BEST}"))
        assert found, row
        assert max(load(path).metrics["val_accuracy"] for path in found) == row.val_accuracy


def test_each_trial_has_a_tensorboard_log(finished):
    _, result, folder = finished
    for row in result.trials:
        events = EventAccumulator(str(folder / f"trial-{row.trial}"))
        events.Reload()
        assert {"val_accuracy", "loss", "num_images"} <= set(events.Tags()["scalars"])
        assert "distilled images" in events.Tags()["images"]
        assert not any(tag.startswith("ray/") for tag in events.Tags()["scalars"])  # nothing twice
        assert any("hparams" in tag for tag in events.summary_metadata)


def test_a_set_that_cannot_be_tested_stays_and_a_resume_tests_it(local_ray, digits, tmp_path, caplog, monkeypatch):
    """What the test needs of its checkpoint is damaged for a while. Only then the driver downloads the set itself."""
    downloaded = []
    monkeypatch.setattr(final_test, "load", lambda place: downloaded.append(place) or load(place))
    config = sweep_config(tmp_path, budget={"trials": 1, "iterations": 2}, scheduler="none")
    first = run_sweep(config, data=digits)
    [row] = first.front
    assert downloaded == []
    written, kept = load(row.artifact), first.artifacts[row.trial]
    assert torch.equal(written.distilled.images, kept.distilled.images)
    assert written.metrics == kept.metrics
    [checkpoint] = (tmp_path / "t" / f"trial-{row.trial}").glob(f"checkpoint_*/{CHECKPOINT}")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(b"torn")
    result = run_sweep(config, data=digits, resume=True)
    [untested] = result.front
    assert downloaded == [str(checkpoint.parent / BEST)]
    assert "damaged" in untested.test_error
    assert f"trial {row.trial} of the front is not tested: " in caplog.text
    assert load(untested.artifact).metrics["val_accuracy"] == row.val_accuracy
    assert result.to_json()["front"][0]["test_accuracy"] is None
    assert json.loads((tmp_path / "t" / "front.json").read_text())[0]["test_error"] == untested.test_error
    checkpoint.write_bytes(whole)
    [again] = run_sweep(config, data=digits, resume=True).front
    assert again.tested["test_accuracy"] == row.tested["test_accuracy"]
    assert again.test_error == ""


def test_an_existing_sweep_is_not_overwritten(finished, digits):
    config, _, _ = finished
    with pytest.raises(UserError, match="contains a sweep already; resume it"):
        run_sweep(config, data=digits)
    other = config.model_copy(update={"seed": 5})
    with pytest.raises(UserError, match="begun with another seed"):
        run_sweep(other, data=digits, resume=True)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (
            {"network": {"choice": ["lenet", "torchvision:alexnet"]}},
            "network=torchvision:alexnet: .*set data.channels=3",
        ),
    ],
)
def test_a_trial_that_cannot_be_is_said_before_any_runs(digits, tmp_path, search, words):
    with pytest.raises(UserError, match=words):
        run_sweep(sweep_config(tmp_path, search=search, known_good=[]), data=digits)


def test_too_large_a_trial_is_said(local_ray, digits, tmp_path):
    with pytest.raises(UserError, match=r"resources\.gpu=64"):
        run_sweep(sweep_config(tmp_path, base=BASE | {"device": "auto"}, resources={"gpu": 64}), data=digits)
    assert not list(tmp_path.iterdir())


def test_a_trial_of_two_workers_is_that_of_one(local_ray, digits, tmp_path):
    base = BASE | {"weights": "random", "train_nets": 2, "val_nets": 2, "workers": 2}
    update = {"base": base, "budget": {"trials": 1, "iterations": 4}, "scheduler": "none", "resources": {"cpu": 0.5}}
    result = run_sweep(sweep_config(tmp_path, **update, objectives={"val_accuracy": "max"}), data=digits)
    [row] = result.trials
    assert row.iterations == 4
    together = load(row.artifact)
    assert together.config.workers == 2
    alone = distill(together.config.model_copy(update={"workers": 1}), data=digits)
    assert together.metrics["val_loss"] == pytest.approx(alone.metrics["val_loss"], rel=1e-3)
    different = (together.distilled.images - alone.distilled.images).abs() > 1e-3
    assert different.float().mean() < 0.01


def test_a_second_sweep_does_not_join_the_private_ray_of_the_first(local_ray):
    import ray

    script = """
import ray
from raydistill.cluster.connect import ray_running
from raydistill.config.sweep_sections import Resources
with ray_running(Resources()):
    print(ray.get_runtime_context().gcs_address)
"""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert ":" in other.stdout
    assert other.stdout.strip() != ray.get_runtime_context().gcs_address
