"""A whole run: its results, stopping, resuming, diverging."""

import io
import math
import signal

import pytest
import torch
from rich.console import Console

from raydistill.commands.progress import ProgressBar, TensorBoardWatcher
from raydistill.evaluation.accuracy import evaluate_on
from raydistill.runs.distillation import distill
from raydistill.runs.run import Run
from raydistill.runs.watcher import Watcher
from raydistill.store.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from raydistill.system.errors import Diverged, UserError

FIXED = {"weights": "fixed"}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
RANDOM = {"weights": "random", "train_nets": 2}
RIDGE = {"epochs": 3, "weights": "random", "solver": {"name": "ridge", "pool": {"size": 3, "age": 2}}}


def same(one, other):
    parts = ("images", "labels", "raw_rates")
    return all(torch.equal(getattr(one.distilled, p), getattr(other.distilled, p)) for p in parts)


class StopAt(Watcher):
    """Asks to stop in the middle of an interval between validations."""

    def __init__(self, iteration):
        self.at, self.now = iteration, 0

    def on_iteration(self, iteration):
        self.now = iteration

    def __call__(self):
        return self.now == self.at


@pytest.mark.slow
@pytest.mark.parametrize("update", [FIXED, RANDOM, RIDGE], ids=["fixed", "random", "ridge"])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_stopped_and_resumed_ends_as_undisturbed(small, digits, tmp_path, update, stop):
    config = small.changed(update)
    whole = distill(config, out=tmp_path / "whole", data=digits)
    stop_at = StopAt(stop)
    halted = distill(config, out=tmp_path / "halves", data=digits, stop=stop_at, watchers=(stop_at,))
    assert halted.metrics["stopped"] == 1
    assert halted.metrics["iterations"] == stop
    assert (tmp_path / "halves" / "best.distilled" / "manifest.json").exists()
    resumed = distill(out=tmp_path / "halves", resume=True, data=digits)
    assert "stopped" not in resumed.metrics
    assert same(resumed, whole)
    for key in ("val_accuracy", "test_accuracy", "test_accuracy_std", "baseline_same_steps", "iterations"):
        assert resumed.metrics[key] == whole.metrics[key], key
    states = [load_checkpoint(tmp_path / name) for name in ("whole", "halves")]
    assert states[0]["recipe"] == states[1]["recipe"]  # that of the first validation
    for part in ("images", "raw_rates"):  # not only the best set: the last one too
        assert torch.equal(*(state["distiller"]["learned"][part] for state in states))
    assert torch.equal(states[0]["distiller"]["outer"]["means"][0], states[1]["distiller"]["outer"]["means"][0])


@pytest.mark.slow
def test_metrics(small, digits):
    artifact = distill(small, data=digits)
    assert artifact.metrics["num_images"] == 20
    assert artifact.metrics["nets"] == 1
    assert artifact.metrics["iterations"] == 6
    assert artifact.metrics["seconds"] > 0
    assert artifact.provenance["dataset_fingerprint"] == digits.fingerprint
    assert distill(small.model_copy(update=RANDOM), data=digits).metrics["nets"] == 2


def test_the_best_set_is_kept_not_the_last(small, digits):
    run = Run(small, digits)
    seen = []
    while not run.done:
        metrics = run.advance()
        seen.append((metrics["val_accuracy"], run.current.images.clone()))
    best = max(range(len(seen)), key=lambda i: seen[i][0])
    assert torch.equal(run.artifact().distilled.images, seen[best][1])
    assert run.artifact().metrics["val_accuracy"] == seen[best][0]


@pytest.mark.slow
def test_searching_never_reads_the_test_set(small, digits):
    """Everything up to the final report is the same with a test set of noise."""
    from dataclasses import replace

    from raydistill.data import Split

    noise = Split(torch.randn_like(digits.test.images[:]), digits.test.labels.flip(0))
    one, other = (
        distill(small.changed({"recipe": "schedule"}), data=data) for data in (digits, replace(digits, test=noise))
    )
    assert same(one, other)
    assert one.metrics["val_accuracy"] == other.metrics["val_accuracy"]
    assert one.metrics["test_accuracy"] != other.metrics["test_accuracy"]


class Poison(Watcher):
    """Makes the images useless in the middle of a run."""

    def on_metrics(self, run, metrics):
        if run.iteration == 4:
            run.distiller.learned.images.fill_(float("nan"))


def test_divergence_keeps_the_best_before(small, digits):
    artifact = distill(small, data=digits, watchers=(Poison(),))
    assert "iteration 6" in artifact.provenance["diverged"]
    assert artifact.distilled.images.isfinite().all()
    assert artifact.metrics["iterations"] == 6


def test_an_explosion_with_iterations_left_is_left_behind(small, digits, tmp_path, caplog):
    """The screen and TensorBoard get the metrics of a validation without a finite loss, too."""
    screen = io.StringIO()
    watchers = (ProgressBar(Console(file=screen, width=200)), TensorBoardWatcher(tmp_path))
    artifact = distill(small.changed({"iterations": 12}), data=digits, watchers=(Poison(), *watchers))
    assert "diverged" not in artifact.provenance
    assert artifact.metrics["iterations"] == 12
    assert artifact.metrics["rewinds"] == 1
    assert [line.split()[2:4] for line in screen.getvalue().splitlines() if line.startswith("6/12 ")] == [
        ["inf", "val"]
    ]
    assert "the run explodes" in caplog.text


def test_divergence_before_the_first_validation_is_an_error(small, digits):
    with pytest.raises(Diverged, match="outer_lr or inner_lr"):
        distill(small.changed({"inner_lr": 1e30, "outer.clip": None}), data=digits)


def test_resume_refuses_other_settings_and_damage(small, digits, tmp_path):
    distill(small, out=tmp_path, data=digits)
    with pytest.raises(UserError, match="other settings"):
        distill(small.model_copy(update={"seed": 1}), out=tmp_path, resume=True, data=digits)
    (tmp_path / CHECKPOINT).write_bytes(b"junk")
    with pytest.raises(UserError, match="damaged"):
        distill(out=tmp_path, resume=True, data=digits)
    with pytest.raises(UserError, match="out=FOLDER"):
        distill(resume=True, data=digits)
    with pytest.raises(UserError, match="no run to resume"):
        distill(out=tmp_path / "none", resume=True, data=digits)


def test_a_checkpoint_holds_no_code(small, digits, tmp_path):
    """It loads with weights_only; one that would run code when unpickled is refused."""
    import pickle

    run = Run(small, digits)
    save_checkpoint(run.state_dict(), tmp_path)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["distiller"]["iteration"] == 0

    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"distiller": Evil()}, tmp_path / CHECKPOINT, pickle_module=pickle)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path)


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C; a shell's background processes ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_no_library_call_installs_a_signal_handler(interruptible, small, digits, tmp_path):
    """Ctrl-C in the middle is Python's own KeyboardInterrupt, and the last checkpoint stays."""

    class Interrupted(Watcher):
        def on_iteration(self, iteration):
            assert [signal.getsignal(number) for number in SIGNALS] == before
            if iteration == 3:
                signal.raise_signal(signal.SIGINT)

    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        distill(small, out=tmp_path / "run", data=digits, watchers=(Interrupted(),))


def test_the_readme_loop(small, digits):
    """A stored set trains an ordinary torch network, as README shows."""
    from torch import nn

    artifact = distill(small, data=digits)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = net[1].weight.clone()
    optimizer = artifact.optimizer(net.parameters())
    for images, labels, rate in artifact.batches():
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        artifact.loss(net(images), labels).backward()
        optimizer.step()
    assert not torch.equal(before, net[1].weight)


@pytest.mark.slow
def test_a_population_keeps_its_best(digits, small, tmp_path):
    config = small.changed({"population": {"size": 3, "spread": 8.0}, "iterations": 30, "eval_every": 10})
    run = Run(config, digits)
    for _ in range(3):
        run.advance()
    population = run.population()
    best = max(range(3), key=lambda i: population[i]["val_accuracy"])
    assert run.best_metrics["val_accuracy"] == population[best]["val_accuracy"]
    assert run.best_metrics["best_member"] == best
    artifact = run.artifact()
    assert artifact.provenance["member"] == population[best]
    problem = run.problem.of_member(best)
    expected = problem.network.unflatten(problem.held_out("test")[0])
    assert torch.equal(artifact.weights["fc1.weight"], expected["fc1.weight"])  # the network it was learned for
    val = evaluate_on(problem, artifact.distilled, "validation")
    assert val.accuracy == run.best_metrics["val_accuracy"]


def test_a_member_that_diverges_leaves_the_others_alone(digits, small):
    run = Run(small.changed({"population": 2, "iterations": 4}), digits)
    run.distiller.learned.images[1] = torch.nan
    metrics = run.advance()
    assert math.isfinite(metrics["loss"])
    assert run.leader == 0
    assert torch.isfinite(run.distiller.learned.images[0]).all()


def test_tf32_needs_a_gpu(digits, small):
    with pytest.raises(UserError, match=r"precision=tf32: only GPUs have it"):
        Run(small.model_copy(update={"precision": "tf32", "device": "cpu"}), digits)
