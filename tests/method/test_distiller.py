"""The outer loop: resume, generators, learning."""

import pytest
import torch
from resuming import make, through_a_file, whole_and_resumed

from raydistill.method.adam import Adam
from raydistill.method.distilled import inverse_softplus
from raydistill.method.distiller import RunningClip
from raydistill.method.population import members
from raydistill.method.rng import named_generator


@pytest.mark.slow
@pytest.mark.parametrize(
    "update",
    [
        {"weights": "fixed"},
        {"weights": "random", "train_nets": 2},
        {"weights": "random", "population": 3},
        {"labels": "softmax", "images.per_step": 5},
        {"labels": "free", "labels.init": "orthogonal", "images.learned": False},
        {"data.augment": {"shift": 2, "flip": True}, "data.balanced": True},
        {"weights": "random", "population": 2, "data.augment": {"rotate": 20, "colour": 0.5, "on": "paired"}},
        {"data.augment": {"scale": 1.2, "cutout": 0.3, "on": "both"}},
    ],
)
def test_resume_is_bit_identical(small, digits, update):
    whole_and_resumed(small.changed(update), digits, iterations=6, stop=3)


@pytest.mark.slow
def test_state_dict_is_complete(small, digits):
    """Every tensor and generator that a step changes is in the state: dropping any one of them changes the result."""
    config = small.changed({"weights": "random", "labels": "softmax", "outer.clip": 0.5})  # always clips
    distiller = make(config, digits)
    for _ in range(3):
        distiller.step()
    state = through_a_file(distiller.state_dict())

    def after(changed):
        fresh = make(config, digits)
        for _ in range(1):
            fresh.step()
        fresh.load_state_dict(changed)
        for _ in range(2):
            fresh.step()
        return torch.cat([p.flatten() for s in (fresh.learned, fresh.averaged) for p in (s.images, s.labels)])

    expected = after(state)
    initial = make(config, digits).state_dict()
    for key in ("learned", "raw_labels", "clip", "averaged", "outer"):
        assert not torch.equal(after(state | {key: initial[key]}), expected), key
    for name in state["generators"]:
        generators = state["generators"] | {name: initial["generators"][name]}
        assert not torch.equal(after(state | {"generators": generators}), expected), name


def test_real_batches_are_augmented(small, digits):
    learned = []
    for augment in ({}, {"shift": 2}, {"shift": 2, "flip": True}):
        distiller = make(small.changed({"data.augment": augment}), digits)
        distiller.step()
        learned.append(distiller.learned.images)
    assert not torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[1], learned[2])


def test_the_global_generator_is_not_used(small, digits):
    torch.manual_seed(1)
    one = make(small, digits)
    one.step()
    torch.manual_seed(2)
    two = make(small, digits)
    two.step()
    assert torch.equal(one.learned.images, two.learned.images)


def test_generators_with_other_names_or_seeds_differ():
    draws = [torch.randn(4, generator=named_generator(s, n)) for s, n in ((0, "a"), (0, "b"), (1, "a"))]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(draws[0], torch.randn(4, generator=named_generator(0, "a")))


def test_cosine_ends_at_zero(small, digits):
    distiller = make(small, digits)
    assert distiller.outer_rate() == small.outer_lr
    distiller.outer.count.fill_(small.iterations)
    assert distiller.outer_rate() == pytest.approx(0, abs=1e-12)


def test_running_clip_limits_an_outlier_and_only_that():
    clip = RunningClip(2.0, 2, torch.device("cpu"))
    ones = torch.ones(2, 2, 2)
    outlier = ones * torch.tensor([1000.0, 1.0])[:, None, None]
    for _ in range(5):
        assert torch.allclose(clip(ones), ones)
    once, again = clip(outlier), clip(outlier)
    assert once[0].norm().item() == pytest.approx(2 * 2.0, rel=1e-5)
    assert again[0].norm().item() < 2.2 * 2.0  # the outlier did not raise the bar
    assert torch.allclose(again[1], ones[1])  # nor touch the other one


def test_a_gradient_that_is_not_finite_changes_nothing():
    for multiple in (2.0, None):
        clip = RunningClip(multiple, 2, torch.device("cpu"))
        ones = torch.ones(2, 2, 2)
        clip(ones)
        for bad in (torch.nan, torch.inf):
            broken = ones.clone()
            broken[0, 1, 1] = bad
            assert torch.equal(clip(broken), torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]))
        assert torch.allclose(clip(ones), ones)


def test_an_iteration_that_explodes_is_passed_over(small, digits):
    """One bad network in between, as random weights bring them."""
    distiller = make(small, digits)
    distiller.step()
    before = distiller.learned.detached()
    distiller._apply(
        torch.full((1, 1 + sum(p.numel() for p in distiller.parameters.values())), torch.nan),
        distiller.solver.draw(),
        torch.zeros(0),
    )
    for _ in range(2):
        assert distiller.step().isfinite().all()
    assert distiller.learned.images.isfinite().all()
    assert not torch.equal(distiller.learned.images, before.images)


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.02, 1.0, 30.0])
def test_inverse_softplus(rate):
    raw = inverse_softplus(torch.tensor(rate))
    assert torch.nn.functional.softplus(raw).item() == pytest.approx(rate, rel=1e-5)


def test_averaged_is_the_running_mean(small, digits):
    distiller = make(small.changed({"outer.average": 0.5}), digits)
    mean = distiller.learned.images.clone()
    for iteration in range(12):
        distiller.step()
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        mean = decay * mean + (1 - decay) * distiller.learned.images
    assert torch.allclose(distiller.averaged.images, mean, atol=1e-6)
    last = make(small.changed({"outer.average": 0}), digits)
    last.step()
    assert torch.equal(last.averaged.images, last.learned.images)


def test_step_sizes_have_a_rate_of_their_own(small, digits):
    distiller = make(small.changed({"outer.rate_lr": 0.005}), digits)
    before = distiller.learned.detached()
    distiller.step()
    for name, rate in (("raw_rates", 0.005), ("images", small.outer_lr)):  # Adam's first step is as long as its rate
        change = (getattr(distiller.learned, name) - getattr(before, name)).abs().max().item()
        assert change == pytest.approx(rate, rel=0.02)


def test_it_learns(digits, small):
    """60 iterations bring the loss on real images well below that of guessing, log(10) = 2.30."""
    config = small.changed(
        {"iterations": 60, "steps": 1, "network.init": "kaiming", "batch_size": 128, "outer_lr": 0.03}
    )
    distiller = make(config, digits)
    losses = [distiller.step().item() for _ in range(60)]
    assert sum(losses[-10:]) / 10 < 1.9 < sum(losses[:5]) / 5


def test_each_of_a_population_is_a_run_of_its_own(small, digits):
    """With the settings of its member, and the population's real batches."""
    population = make(small.changed({"population": 3}), digits)
    alone = [make(member, digits) for member in population.members]
    for one in alone:
        one.generators["batches"] = named_generator(small.seed, "batches")
    for _ in range(4):
        losses = population.step()
        expected = torch.cat([one.step() for one in alone])
        assert torch.allclose(losses, expected, atol=1e-5)
    for mine, one in zip(population.learned.unstack(), alone, strict=True):
        # Adam turns a gradient of rounding errors alone into steps of full length, so a few pixels may differ
        difference = (mine.images - one.learned.images[0]).abs()
        assert (difference > 1e-4).float().mean() < 0.01
        assert torch.allclose(mine.raw_rates, one.learned.raw_rates[0], atol=1e-4)
    assert not torch.allclose(population.learned.images[0], population.learned.images[1], atol=0.1)


def test_members_differ_around_the_given_rates(small):
    config = small.changed({"population": {"size": 20, "spread": 3.0}})
    first, *others = members(config)
    assert first == config.changed({"population.size": 1})
    assert len({member.seed for member in others} | {first.seed}) == 20
    for name in ("inner_lr", "outer_lr"):
        factors = [getattr(member, name) / getattr(config, name) for member in others]
        assert all(1 / 3 <= factor <= 3 for factor in factors)
        assert min(factors) < 0.7
        assert max(factors) > 1.4
    assert members(config) == members(config)


def test_adam_is_that_of_torch():
    generator = named_generator(0, "adam")
    start, rates = torch.randn(2, 3, 4, generator=generator), torch.tensor([0.1, 0.02])
    mine = start.clone()
    theirs = [start[i].clone().requires_grad_() for i in range(2)]
    ours = Adam([mine], betas=(0.5, 0.999))
    optimizers = [torch.optim.Adam([t], lr=r, betas=(0.5, 0.999)) for t, r in zip(theirs, rates.tolist(), strict=True)]
    for _ in range(20):
        gradient = torch.randn(2, 3, 4, generator=generator)
        ours.step([gradient], [rates])
        for i in range(2):
            theirs[i].grad = gradient[i]
            optimizers[i].step()
    assert torch.allclose(mine, torch.stack(theirs), atol=1e-6)
