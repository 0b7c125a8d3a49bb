"""Training by a recipe, against plain torch loops in float64."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import AdamRecipe, ScheduleRecipe, SgdRecipe
from raydistill.method import DistilledSet, train
from raydistill.method.recipe import batches, grad_steps, rates, train_by
from raydistill.method.rng import named_generator
from raydistill.networks import LeNet, Network, build_network
from raydistill.networks.initialisers import Initialiser
from raydistill.system.errors import UserError

SHAPE = (1, 8, 8)
RECIPES = {
    "adam": AdamRecipe(steps=8, lr=0.01, warm_up=3, weight_decay=0.01),
    "adam in batches": AdamRecipe(steps=8, lr=0.01, batch=4, loss="squared_error"),
    "sgd": SgdRecipe(steps=8, lr=0.05, loss="squared_error"),
    "sgd in batches": SgdRecipe(steps=8, lr=0.005, batch=4, decay="constant", momentum=0.5, weight_decay=0.1),
}


def lenet(classes):
    """A LeNet in float64; for two classes it has one output."""
    return LeNet(SHAPE, 1 if classes == 2 else classes).double()


def random_set(classes, sets=2, passes=1):
    """Two sets of 3 steps of 5 images, with labels that are no probabilities."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(sets, 3, 5, *SHAPE, dtype=torch.float64, generator=draw)
    labels = torch.randn(sets, 3, 5, classes, dtype=torch.float64, generator=draw)
    return DistilledSet(images, labels, torch.zeros(sets, passes, 3, dtype=torch.float64))


def by_hand(recipe, sets, number, module, seed):
    """The weights that a plain loop with torch's optimizer makes of a module's on one set."""
    kind = torch.optim.SGD if isinstance(recipe, SgdRecipe) else torch.optim.Adam
    more = {"momentum": recipe.momentum} if isinstance(recipe, SgdRecipe) else {}
    optimizer = kind(module.parameters(), lr=1.0, weight_decay=recipe.weight_decay, **more)
    for images, labels, rate in batches(recipe, sets, seed):
        optimizer.param_groups[0]["lr"] = rate.item()
        optimizer.zero_grad()
        logits, wanted = module(images[number]), labels[number]
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        loss = F.cross_entropy(logits, wanted)
        if recipe.loss == "squared_error":
            of_class = [(logits[:, k] - (wanted[:, k] - 1 / wanted.shape[1])) ** 2 for k in range(wanted.shape[1])]
            loss = sum(of_class).mean() / 2
        loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("classes", [10, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_every_network_is_trained_as_torch_trains_it(name, classes):
    recipe, sets = RECIPES[name], random_set(classes)
    network = Network(lenet(classes), Initialiser(lenet(classes), "xavier"))
    weights = network.initial_weights(6, torch.Generator().manual_seed(1)).double().view(2, 3, -1)
    found = train_by(recipe, network, sets, weights, seed=7)
    for number in range(2):
        for net in range(3):
            module = lenet(classes)
            module.load_state_dict(network.unflatten(weights[number, net]))
            plain = by_hand(recipe, sets, number, module, 7)
            assert torch.allclose(found[number, net], plain, rtol=0, atol=1e-8)
            assert not torch.allclose(plain, weights[number, net], rtol=0, atol=1e-4)


def test_rates_grow_in_the_warm_up_and_follow_a_cosine():
    found = rates(AdamRecipe(lr=0.4, steps=10, warm_up=4)).tolist()
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4:] == pytest.approx([0.2 * (1 + math.cos(math.pi * t / 6)) for t in range(6)])
    assert all(a > b for a, b in pairwise(found[4:]))
    assert rates(AdamRecipe(lr=0.4, steps=4, decay="constant", warm_up=2)).tolist() == pytest.approx(
        [0.2, 0.4, 0.4, 0.4]
    )


def test_batches_are_passes_over_the_set():
    recipe = AdamRecipe(steps=6, batch=5)
    sets = random_set(10)
    seen = [images for images, _, _ in batches(recipe, sets, 0)]
    for three in (seen[:3], seen[3:]):
        of_pass = torch.cat(three, 1).flatten(2)
        for number in range(2):
            every = sets.images[number].flatten(0, 1).flatten(1)
            order = (of_pass[number][:, None] == every).all(2).nonzero()[:, 1]
            assert order.sort().values.tolist() == list(range(15))
    assert [labels.shape for _, labels, _ in batches(recipe, sets, 0)] == [(2, 5, 10)] * 6


def test_the_seed_decides_the_batches():
    recipe, sets = AdamRecipe(steps=4, batch=5), random_set(10)

    def drawn(seed):
        return torch.stack([images for images, _, _ in batches(recipe, sets, seed)])

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    whole = AdamRecipe(steps=2, batch=1000)
    assert all(torch.equal(images, sets.images.flatten(1, 2)) for images, _, _ in batches(whole, sets, 0))


def test_the_schedule_is_that_of_the_unroll():
    network = build_network(DistillConfig(), SHAPE, 10)
    sets = DistilledSet(*(t.float() for t in vars(random_set(10)).values()))
    weights = network.initial_weights(4, named_generator(0, "w")).view(2, 2, -1)
    found = train_by(ScheduleRecipe(), network, sets, weights, 0)
    assert torch.equal(found, torch.stack([train(network, s, w) for s, w in zip(sets.unstack(), weights, strict=True)]))


def test_a_set_without_step_sizes_has_no_schedule():
    sets = random_set(10, passes=0)
    with pytest.raises(UserError, match="recipe=schedule: the set has no learned step sizes"):
        train_by(ScheduleRecipe(), build_network(DistillConfig(), SHAPE, 10), sets, torch.zeros(2, 1, 3), 0)


def test_gradient_steps_of_a_recipe():
    one = random_set(10, passes=4).unstack()[0]
    assert grad_steps(ScheduleRecipe(), one) == 12
    assert grad_steps(AdamRecipe(steps=70), one) == 70
