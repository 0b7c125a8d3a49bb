"""A run that decays or explodes is noticed, says so, and goes back to its best set."""

import math
import re

import pytest
import torch

from raydistill.evaluation.accuracy import WORST_LOSS
from raydistill.runs.decay import PATIENCE, Decay
from raydistill.runs.run import Run
from raydistill.system.errors import Diverged


def decayed(losses, accuracies):
    """Return after which validations a run counts as decayed."""
    decay, best, found = Decay(), 0.0, []
    for number, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True)):
        best = max(best, accuracy)
        if decay.has_decayed(loss, accuracy, best):
            found.append(number)
    return found


@pytest.mark.parametrize(
    ("losses", "accuracies", "expected"),
    [
        ([1.0, 0.5, 0.3, 0.2, 0.2, 0.2], [0.5, 0.8, 0.9, 0.92, 0.93, 0.93], []),  # It learns.
        ([0.5, 0.3, 0.31, 0.29, 0.3, 0.31], [0.9, 0.94, 0.9, 0.9, 0.9, 0.9], []),  # Validation alone is lower.
        ([0.3, 0.9, 0.9, 0.9, 0.9, 0.9], [0.9, 0.9, 0.91, 0.9, 0.9, 0.89], []),  # The loss alone is higher.
        ([0.3, 0.9, 0.9, 0.3, 0.9, 0.9], [0.9, 0.5, 0.5, 0.9, 0.5, 0.5], []),  # It comes back by itself.
        ([0.5, 0.3, 0.6, 0.7, 0.9, 1.2, 1.5, 1.5], [0.8, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.5], [4, 7]),
        ([0.3, 2.0, float("nan"), float("inf")], [0.9, 0.1, 0.1, 0.1], [3]),
    ],
)
def test_decay_is_a_high_loss_and_a_low_accuracy_several_times_in_a_row(losses, accuracies, expected):
    assert decayed(losses, accuracies) == expected


def test_the_state_of_a_detector_is_complete():
    one = Decay()
    for loss in (0.3, 0.9, 0.9):
        one.has_decayed(loss, 0.5, 0.9)
    other = Decay()
    other.load_state_dict(one.state_dict())
    assert PATIENCE == 3
    assert one.has_decayed(0.9, 0.5, 0.9)
    assert other.has_decayed(0.9, 0.5, 0.9)
    assert not Decay().has_decayed(0.9, 0.5, 0.9)


def run_that_decays(small, digits, **changes):
    """A run on digits that has learned for a while, when its outer rate becomes far too large."""
    values = {"iterations": 240, "eval_every": 10, "outer_lr": 0.02, "steps": 1, "batch_size": 64, "recipe": "schedule"}
    values |= {"outer.schedule": "constant", "outer.average": 0, "network.init": "kaiming"}
    run = Run(small.changed(values | changes), digits)
    validations(run, 8)
    run.distiller.slower.fill_(100.0)
    return run


def validations(run, count=None):
    found = []
    while not run.done and (count is None or len(found) < count):
        found.append(run.advance())
    return found


@pytest.mark.slow
def test_a_run_that_decays_goes_back_and_says_so(small, digits, caplog):
    run = run_that_decays(small, digits)
    metrics = validations(run)
    assert run.rewinder.count >= 1
    assert metrics[-1]["rewinds"] == run.rewinder.count
    assert run.artifact().metrics["rewinds"] == run.rewinder.count
    assert run.distiller.slower.item() == 100 * 0.5**run.rewinder.count
    said = [message for message in caplog.messages if message.startswith("the run decays: its validation accuracy is ")]
    assert len(said) == run.rewinder.count
    back = r"; it goes back to the set of iteration \d+ \(\d+\.\d%\) with half the outer rates "
    assert re.search(back + r"\(1 of outer\.rewinds=3; a smaller outer_lr would need none\)$", said[0])
    never = run_that_decays(small, digits, **{"outer.rewinds": 0})
    without = validations(never)
    assert never.rewinder.count == 0
    assert "rewinds" not in without[-1]


def test_a_rewind_restores_the_state_of_the_best_validation(small, digits):
    run = run_that_decays(small, digits)
    kept = run.distiller.snapshot(0)
    run.advance()
    assert any(not torch.equal(now, then) for now, then in zip(run.distiller.snapshot(0), kept, strict=True))
    run.distiller.rewind(0, kept)
    assert all(torch.equal(now, then) for now, then in zip(run.distiller.snapshot(0), kept, strict=True))
    before = run.distiller.learned.images.clone()
    run.distiller.step()
    half = (run.distiller.learned.images - before).abs().max()
    run.distiller.rewind(0, kept)
    run.distiller.step()
    quarter = (run.distiller.learned.images - before).abs().max()
    assert quarter < 0.75 * half


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"population": 2}], ids=str)
def test_a_resumed_run_goes_back_where_an_undisturbed_one_does(small, digits, changes):
    whole, first = (run_that_decays(small, digits, **changes) for _ in range(2))
    validations(whole)
    assert whole.rewinder.count
    while not any(decay.in_a_row for decay in first.rewinder.decays):
        first.advance()  # Until the decay has begun; the way back is still to come.
    second = Run(first.config, digits)
    second.load_state_dict(first.state_dict())
    validations(second)
    assert torch.equal(whole.distiller.learned.images, second.distiller.learned.images)
    assert whole.rewinder.rewinds == second.rewinder.rewinds


RIDGE = {
    "solver": {"name": "ridge", "pool": {"size": 3, "age": 50}},
    "epochs": 3,
    "recipe": {"name": "adam", "steps": 5},
}
KINDS = pytest.mark.parametrize(
    "changes", [{"labels": "free"}, RIDGE, {"population": 2}], ids=("unroll", "ridge", "two")
)


def run_that_explodes(small, digits, **changes):
    """A run on digits that has learned for a while, when its images become infinite."""
    values = {"iterations": 60, "eval_every": 5, "weights": "random", "recipe": "schedule"}
    run = Run(small.changed(values | changes), digits)
    validations(run, 4)
    run.distiller.learned.images.mul_(math.inf)
    return run


@KINDS
def test_a_run_that_explodes_goes_back_and_learns_on(small, digits, caplog, changes):
    run = run_that_explodes(small, digits, **changes)
    best = dict(run.best_metrics)
    back, *later = validations(run)
    assert "loss" not in back
    assert back["val_accuracy"] == best["val_accuracy"]
    assert run.rewinder.rewinds == [1] * len(run.distiller.members)
    assert all(math.isfinite(metrics["loss"]) for metrics in later)
    assert run.distiller.slower.tolist() == [0.5] * len(run.distiller.members)
    assert caplog.messages[-1].startswith(
        "the run explodes: its loss is no longer finite at iteration 25; it goes back"
    )
    assert run.best_metrics["best_iteration"] > 25


@KINDS
def test_a_resumed_run_goes_back_from_an_explosion_as_an_undisturbed_one_does(small, digits, changes):
    whole, first = (run_that_explodes(small, digits, **changes) for _ in range(2))
    validations(whole)
    first.advance(stop=lambda: first.iteration == 23)
    second = Run(first.config, digits)
    second.load_state_dict(first.state_dict())
    validations(second)
    assert whole.rewinder.rewinds == second.rewinder.rewinds
    assert torch.equal(whole.distiller.learned.images, second.distiller.learned.images)


@pytest.mark.parametrize("changes", [{"outer.rewinds": 0}, {"iterations": 25}], ids=str)
def test_a_run_that_cannot_go_back_diverges(small, digits, changes):
    with pytest.raises(Diverged, match="the loss is inf at iteration 25: a smaller outer_lr or inner_lr would help"):
        validations(run_that_explodes(small, digits, **changes))


def test_a_run_whose_best_set_explodes_has_nowhere_to_go_back(small, digits):
    run = run_that_explodes(small, digits)
    run.member_metrics[0]["val_loss"] = WORST_LOSS
    with pytest.raises(Diverged):
        run.advance()
