"""How many trials fit, by what they were measured to take."""

from dataclasses import replace

import pytest

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_sections import Resources
from raydistill.sweep.searching import capacity, memory_need
from raydistill.sweep.searching.memory_need import Need
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.system.errors import UserError
from raydistill.system.gpu_memory import GIB

BASE = {"batch_size": 32, "eval_every": 2, "device": "cpu"}


def config(**update):
    search = {"steps": {"int": [1, 2]}, "inner_lr": {"loguniform": [0.01, 0.3]}}
    return validated(SweepConfig, {"name": "t", "base": BASE, "search": search} | update)


def inputs(digits, **base):
    return TrialInputs(base=BASE | base, data=digits.to_numpy(), bank=None, threads=1.0)


def test_room_is_that_of_the_scarcest():
    node = {"CPU": 16.0, "GPU": 2.0, "memory": 64.0 * GIB}
    assert capacity.room(node, Resources(cpu=1)) == 16
    assert capacity.room(node, Resources(cpu=1, gpu=0.25)) == 8
    assert capacity.room(node, Resources(cpu=1, gpu=1 / 3)) == 6  # not 5 by rounding
    assert capacity.room(node, Resources(cpu=1, gpu=0.25, memory=20)) == 3
    assert capacity.room({"memory": GIB}, Resources(cpu=1)) == 0  # a head without cores


def test_a_gpus_share_holds_the_largest_trial():
    assert capacity.gpu_share(Need(GIB, 10 * GIB, 80 * GIB, mps=True)) == 1 / 7  # seven with a tenth in reserve
    assert capacity.gpu_share(Need(GIB, 72 * GIB, 80 * GIB)) == 1
    with pytest.raises(UserError, match=r"needs 75\.0 GiB of a GPU that has 80\.0"):
        capacity.gpu_share(Need(GIB, 75 * GIB, 80 * GIB))
    assert capacity.gpu_share(Need(GIB, GIB // 2, 80 * GIB)) == 1 / capacity.MOST_ON_A_GPU
    assert capacity.gpu_share(Need(GIB, GIB // 2, 80 * GIB, mps=True)) == 1 / capacity.MOST_WITH_MPS
    assert (
        capacity.gpu_share(Need(GIB, GIB // 2, 6 * GIB, mps=True)) == 1 / 6
    )  # a smaller share is refused by every process
    with pytest.raises(UserError, match=r"resources\.gpu=auto.*without a GPU"):
        capacity.gpu_share(Need(GIB))


def test_mps_is_known_by_its_pipe(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not memory_need.mps_runs()
    (tmp_path / "control").touch()
    assert memory_need.mps_runs()


def test_the_largest_points_of_a_search():
    search = {
        "steps": {"int": [1, 9]},
        "train_nets": {"choice": [1, 4, 2]},
        "inner_lr": {"loguniform": [0.01, 0.3]},
        "network": {"choice": ["lenet", "convnet"]},
        "labels": {"choice": ["fixed", "softmax"]},
    }
    largest = {"steps": 9, "train_nets": 4, "inner_lr": 0.01, "labels": "fixed"}
    points = memory_need.largest_points(config(search=search, base=BASE | {"weights": "random"}))
    assert points == [largest | {"network": "lenet"}, largest | {"network": "convnet"}]


def test_measured_memory_follows_the_size_of_trials(local_ray, digits):
    """Large batches for many networks take hundreds of MB more."""
    small = memory_need.measured(config(), inputs(digits))
    base = {"weights": "random", "train_nets": 64, "batch_size": 1000, "val_nets": 1}
    large = memory_need.measured(config(base=BASE | base), inputs(digits, **base))
    assert small.memory > 100e6
    assert large.memory > small.memory + 150e6
    assert small.gpu == 0


def test_an_error_of_the_largest_trial_is_one_line(local_ray, digits):
    data = digits.to_numpy()
    del data["val_labels"]
    with pytest.raises(UserError, match=r"a trial with \{'steps': 2, .*\} cannot be begun: KeyError") as found:
        memory_need.measured(config(), replace(inputs(digits), data=data))
    assert "\n" not in str(found.value)


def test_settings_that_fit_nothing_are_said_with_their_point(local_ray, digits):
    with pytest.raises(UserError, match=r"search: a trial with \{'steps': 2, .*\}: precision=tf32: only GPUs have it"):
        memory_need.measured(config(), inputs(digits, precision="tf32"))


def test_measuring_has_a_limit(local_ray, digits, monkeypatch):
    monkeypatch.setattr(memory_need, "LIMIT", 0.06)
    with pytest.raises(UserError, match=r"budget\.concurrent=auto: .* not measured within 0\.001 minutes"):
        memory_need.measured(config(), inputs(digits))


def test_each_memory_counts_at_the_point_that_needs_most_of_it():
    needs = [Need(3 * GIB, GIB, 80 * GIB), Need(GIB, 2 * GIB, 40 * GIB)]
    assert Need.of_all(needs) == Need(3 * GIB, 2 * GIB, 40 * GIB)


def test_auto_says_what_fits_and_a_number_measures_nothing(local_ray, digits, monkeypatch, tmp_path):
    monkeypatch.setattr(capacity, "measured", lambda config, inputs: Need(2 * GIB))
    said = []
    places = capacity.fitted(config(), inputs(digits), str(tmp_path), say=said.append)
    assert places.memory == pytest.approx(2.2)
    assert said[0].startswith("the largest trial takes 2.0 GiB (measured); ")
    monkeypatch.setattr(capacity, "measured", lambda config, inputs: Need(2**50))
    with pytest.raises(UserError, match=r"resources\.memory=.*the largest node gives Ray"):
        capacity.fitted(config(), inputs(digits), str(tmp_path))
    monkeypatch.delattr(capacity, "measured")
    assert capacity.fitted(config(), inputs(digits), str(tmp_path), resume=True) == places
    fixed = config(budget={"concurrent": 3})
    assert capacity.fitted(fixed, inputs(digits), str(tmp_path)) == fixed.resources


def test_an_autoscalers_nodes_count(local_ray, digits, monkeypatch, tmp_path):
    """A head without cores, and machines that come when trials wait."""
    monkeypatch.setattr(capacity, "nodes_there", lambda: [{"memory": GIB}])
    kinds = [({"CPU": 4.0, "GPU": 1.0, "memory": 16.0 * GIB}, 8)]
    monkeypatch.setattr(capacity, "nodes_to_come", lambda: kinds)
    monkeypatch.setattr(capacity, "measured", lambda config, inputs: Need(6 * GIB, 2 * GIB, 24 * GIB))
    said = []
    base = BASE | {"device": "auto"}
    places = capacity.fitted(
        config(base=base, resources={"gpu": "auto"}), inputs(digits), str(tmp_path), say=said.append
    )
    assert places.gpu == 1 / capacity.MOST_ON_A_GPU
    assert said == [
        "the largest trial takes 6.0 GiB and 2.0 GiB of the GPU (measured); 0 fit at a time on these nodes, 16 on all "
        "that may be started"
    ]
    for device, lines in (("auto", 1), ("cpu", 0)):
        said.clear()
        capacity.fitted(
            config(base=BASE | {"device": device}, budget={"concurrent": 2}),
            inputs(digits),
            str(tmp_path),
            say=said.append,
        )
        assert len(said) == lines
        assert all(line.startswith("resources.gpu=0: trials compute on CPUs, and 8 GPUs") for line in said)
