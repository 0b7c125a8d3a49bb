"""CUDA graphs against none, populations, several trials in one process, and what memory they leave."""

import gc
import weakref

import pytest
import torch
from made_up import made_up_data

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import RecipeSettings
from raydistill.config.settings import validated
from raydistill.method import Distiller
from raydistill.method.recipe import train_by
from raydistill.method.rng import named_generator
from raydistill.networks import build_network

pytestmark = pytest.mark.gpu

SMALL = {"batch_size": 64, "steps": 2, "epochs": 2, "iterations": 40, "images_per_class": 1}
RIDGE = {  # Networks give way to new ones on the way.
    **{"weights": "random", "network": "convnet", "network.width": 16, "epochs": 3},
    "solver": {"name": "ridge", "pool": {"size": 3, "age": 3}},
}
CASES = {
    "one": {"weights": "fixed"},
    "networks": {"weights": "random", "train_nets": 3},
    "population": {"weights": "fixed", "population": 4},
    "both": {"weights": "random", "train_nets": 3, "population": 2},
    "labels": {"weights": "fixed", "labels": "softmax", "images.per_step": 5, "data.augment.shift": 2},
    "alexcifarnet": {"weights": "random", "network": "alexcifarnet"},
    "shifted set": {"weights": "random", "data.augment": {"shift": 2, "flip": True, "on": "set"}},
    "paired": {"weights": "random", "population": 2, "data.augment": {"rotate": 15, "colour": 0.5, "on": "paired"}},
    "convnet": {"weights": "random", "network": "convnet", "network.width": 16, "population": 2},
    "ridge": {**RIDGE, "train_nets": 2, "labels": "free"},
    "ridge, population": {**RIDGE, "population": 2, "solver.mirror": True, "data.augment": {"shift": 2, "on": "both"}},
    "bfloat16": {"weights": "random", "precision": "bfloat16", "train_nets": 2},
}
ALMOST_EQUAL = 1e-4  # relative, of losses after so few iterations; equal to the bit is what we hope for


def made(case, data):
    config = validated(DistillConfig, SMALL | CASES[case])
    return Distiller(config, build_network(config, data.image_shape, data.num_classes), data.train, data.num_classes)


def losses_of(case, data, iterations=8):
    distiller = made(case, data)
    return torch.stack([distiller.step() for _ in range(iterations)]), distiller.learned.images.clone()


@pytest.mark.parametrize("case", CASES)
def test_graphs_change_nothing(case, device, report, monkeypatch):
    data = made_up_data((3, 16, 16), device)
    with_graphs = losses_of(case, data)
    monkeypatch.setattr("raydistill.kernels.cuda_graph.WARM_UP", 1000)
    without, again = (losses_of(case, data) for _ in range(2))
    rows = []
    for name, one, other in (("graphs, none", with_graphs, without), ("none, none again", without, again)):
        equal = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        apart = ((one[0] - other[0]) / other[0]).abs().max().item()
        rows.append([name, equal, apart, (one[1] - other[1]).abs().max().item()])
    report(f"CUDA graphs: {case}", ("", "bit-equal", "losses, relative", "images"), rows)
    assert rows[0][2] < max(ALMOST_EQUAL, 10 * rows[1][2])
    assert not torch.equal(with_graphs[0][-2], with_graphs[0][-1])  # it goes on, and does not replay one iteration


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_recipe_trains_as_on_a_cpu(name, device):
    """The same batches and augmentation, whatever the device; a graph holds each step."""
    data = made_up_data((3, 16, 16), device)
    distiller = made("convnet", data)
    values = {"name": name, "lr": 0.001, "steps": 12, "batch": 4, "warm_up": 2, "augment": {"shift": 2, "flip": True}}
    recipe = validated(RecipeSettings, {"recipe": values}).recipe
    weights = distiller.network.initial_weights(2, named_generator(0, "weights"))[None].expand(2, -1, -1)
    cpu = torch.device("cpu")
    there = train_by(recipe, distiller.network, distiller.learned, weights.to(device), 0).to(cpu)
    here = train_by(recipe, distiller.network, distiller.learned.to(cpu), weights, 0)
    assert (there - weights).abs().max() > 0.001
    # Adam's steps are as long for a gradient of rounding errors, so single weights may differ.
    assert (there - here).abs().mean() < 0.02 * (here - weights).abs().mean()


def test_each_of_a_population_is_a_run_of_its_own(device):
    """With the settings of its member, and the population's real batches."""
    data = made_up_data((3, 16, 16), device)
    config = validated(DistillConfig, {**SMALL, "population": 3})
    network = build_network(config, data.image_shape, data.num_classes)
    population = Distiller(config, network, data.train, data.num_classes)
    alone = [Distiller(member, network, data.train, data.num_classes) for member in population.members]
    for one in alone:
        one.generators["batches"] = named_generator(config.seed, "batches", device)
    for _ in range(6):
        losses = population.step()
        assert torch.allclose(losses, torch.cat([one.step() for one in alone]), rtol=1e-3)
    assert len(losses.unique()) == 3


def test_a_trial_that_was_dropped_leaves_nothing(cuda, report):
    """Without Python's garbage collector: a process runs dozens of trials, each with graphs of up to tens of GB."""
    data = made_up_data((3, 32, 32), cuda)
    gc.collect()
    gc.disable()
    try:
        rows, left = [], []
        for trial in range(4):
            distiller = made("convnet", data)
            for _ in range(6):
                distiller.step()
            torch.cuda.synchronize()
            held, old = torch.cuda.memory_allocated(cuda), weakref.ref(distiller)
            del distiller
            left.append(torch.cuda.memory_allocated(cuda))
            rows.append([trial, old() is None, held / 1e6, left[-1] / 1e6, torch.cuda.memory_reserved(cuda) / 1e6])
    finally:
        gc.enable()
    report("Trials in one process", ("trial", "gone", "held, MB", "left, MB", "reserved, MB"), rows)
    assert all(gone for _, gone, *_ in rows)
    assert left[-1] - left[0] < 4e6
    assert rows[-1][-1] < 1.5 * rows[0][-1] + 64  # graphs' own pools are given back or used again
