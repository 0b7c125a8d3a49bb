"""How many trials fit, by what they were measured to take."""

import pytest
import torch

from raydistill.device import CUDA_ITSELF, use_gpu_share
from raydistill.errors import UserError
from raydistill.settings import validated
from raydistill.sweep import fit
from raydistill.sweep_config import Resources, SweepConfig

GIB = 2**30
BASE = {"batch_size": 32, "eval_every": 2, "device": "cpu"}


def config(**update):
    search = {"steps": {"int": [1, 2]}, "inner_lr": {"loguniform": [0.01, 0.3]}}
    return validated(SweepConfig, {"name": "t", "base": BASE, "search": search} | update)


def shared(digits, **base):
    return {"base": BASE | base, "data": digits.to_numpy(), "bank": None, "threads": 1.0}


def test_room_is_that_of_the_scarcest():
    node = {"CPU": 16.0, "GPU": 2.0, "memory": 64.0 * GIB}
    assert fit.room(node, Resources(cpu=1)) == 16
    assert fit.room(node, Resources(cpu=1, gpu=0.25)) == 8
    assert fit.room(node, Resources(cpu=1, gpu=1 / 3)) == 6  # not 5 by rounding
    assert fit.room(node, Resources(cpu=1, gpu=0.25, memory=20)) == 3
    assert fit.room({"memory": GIB}, Resources(cpu=1)) == 0  # a head without cores


def test_a_gpus_share_holds_the_largest_trial():
    assert fit.gpu_share(fit.Need(GIB, 10 * GIB, 80 * GIB)) == 1 / 7  # seven with a tenth in reserve
    assert fit.gpu_share(fit.Need(GIB, 72 * GIB, 80 * GIB)) == 1
    with pytest.raises(UserError, match=r"needs 75\.0 GiB of a GPU that has 80\.0"):
        fit.gpu_share(fit.Need(GIB, 75 * GIB, 80 * GIB))
    with pytest.raises(UserError, match=r"resources\.gpu=auto.*without a GPU"):
        fit.gpu_share(fit.Need(GIB))


def test_the_largest_points_of_a_search():
    search = {
        "steps": {"int": [1, 9]},
        "train_nets": {"choice": [1, 4, 2]},
        "inner_lr": {"loguniform": [0.01, 0.3]},
        "network": {"choice": ["lenet", "convnet"]},
        "labels": {"choice": ["fixed", "softmax"]},
    }
    largest = {"steps": 9, "train_nets": 4, "inner_lr": 0.01, "labels": "fixed"}
    points = fit.largest_points(config(search=search, base=BASE | {"weights": "random"}))
    assert points == [largest | {"network": "lenet"}, largest | {"network": "convnet"}]


def test_a_share_is_a_cap_on_memory(monkeypatch):
    caps = []
    total = 80 * GIB
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": total}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: caps.append(share))
    for share in (0.25, 1.0, 2.0, 0.0):
        use_gpu_share(share, torch.device("cuda"))
    use_gpu_share(0.25, torch.device("cpu"))
    assert caps == [0.25 - CUDA_ITSELF / total]  # one that shares the GPU with nobody is not limited


def test_measured_memory_follows_the_size_of_trials(local_ray, digits):
    """Large batches for many networks take hundreds of MB more."""
    small = fit.measured(config(), shared(digits))
    base = {"weights": "random", "train_nets": 64, "batch_size": 1000, "val_nets": 1}
    large = fit.measured(config(base=BASE | base), shared(digits, **base))
    assert small.memory > 100e6
    assert large.memory > small.memory + 150e6
    assert small.gpu == 0


def test_auto_says_what_fits_and_a_number_measures_nothing(local_ray, digits, monkeypatch):
    monkeypatch.setattr(fit, "measured", lambda config, shared: fit.Need(2 * GIB))
    said = []
    places = fit.fitted(config(), shared(digits), said.append)
    assert places.memory == pytest.approx(2.2)
    assert said[0].startswith("the largest trial takes 2.0 GiB (measured); ")
    monkeypatch.setattr(fit, "measured", lambda config, shared: fit.Need(2**50))
    with pytest.raises(UserError, match=r"resources\.memory=.*the largest node gives Ray"):
        fit.fitted(config(), shared(digits))
    monkeypatch.delattr(fit, "measured")
    fixed = config(budget={"concurrent": 3})
    assert fit.fitted(fixed, shared(digits)) == fixed.resources
