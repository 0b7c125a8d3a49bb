"""Checkpoints: going on ends where an undisturbed run does, on the same device and on another."""

import io
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from made_up import made_up_data

from raydistill.config.distill_config import DistillConfig
from raydistill.method import Distiller
from raydistill.networks import build_network

pytestmark = pytest.mark.gpu

# The largest difference of images and step sizes after 12 iterations, of which the second six were resumed. An exact
# resume needs, beside our own state, kernels that add in one order: torch.use_deterministic_algorithms(True), with
# CUBLAS_WORKSPACE_CONFIG=:4096:8 set before the process first uses the GPU.
BOUNDS = {"as it is": 0.1, "cudnn.deterministic": 0.1, "deterministic": 0.0}
NETWORKS = {
    "lenet": {"weights": "random", "train_nets": 2},
    "alexcifarnet": {"weights": "fixed"},
    "convnet": {"weights": "random", "network.width": 16, "population": 2},
}
PARTS = ("images", "labels", "raw_rates")


def made(name, data, **update):
    settings = {"network": name, "batch_size": 64, "steps": 2, "epochs": 2, "iterations": 40} | NETWORKS[name] | update
    config = DistillConfig(**settings)
    return Distiller(config, build_network(config, data.image_shape, data.num_classes), data.train, data.num_classes)


def stepped(distiller, count):
    for _ in range(count):
        loss = distiller.step()
    assert loss.isfinite().all()
    return distiller


def through_a_file(state):
    """As a checkpoint goes: on the CPU."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, map_location="cpu", weights_only=True)


def resumed_apart(name, data):
    """How far a resumed run ends from an undisturbed one, and an undisturbed one from another."""
    undisturbed, again = (stepped(made(name, data), 12) for _ in range(2))
    resumed = made(name, data)
    stepped(resumed, 2)  # a state that loading has to replace
    resumed.load_state_dict(through_a_file(stepped(made(name, data), 6).state_dict()))
    stepped(resumed, 6)
    parts = [(getattr(undisturbed.learned, p), getattr(other.learned, p)) for p in PARTS for other in (resumed, again)]
    apart = [(a - b).abs().max().item() for a, b in parts]
    return max(apart[::2]), max(apart[1::2])


@pytest.mark.parametrize("mode", ["as it is", "cudnn.deterministic"])
@pytest.mark.parametrize("name", NETWORKS)
def test_goes_on_as_an_undisturbed_run(name, mode, device, report, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", mode == "cudnn.deterministic")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", mode != "cudnn.deterministic")
    resumed, again = resumed_apart(name, made_up_data((3, 16, 16), device))
    report(f"Resumed, {mode}: {name}", ("resumed", "undisturbed twice"), [[resumed, again]])
    assert resumed <= max(BOUNDS[mode], 2 * again)


def test_goes_on_exactly_with_deterministic_algorithms(device, report):
    """In a process of its own, as cuBLAS reads its variable once."""
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    done = subprocess.run(
        [sys.executable, __file__, str(device)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    rows = [[name, *numbers, "; ".join(complaints)] for name, (*numbers, complaints) in found.items()]
    report("Resumed, deterministic algorithms", ("", "resumed", "undisturbed twice", "torch says"), rows)
    assert all(resumed <= BOUNDS["deterministic"] for _, resumed, *_ in rows)


def test_a_checkpoint_goes_to_the_cpu_and_back(device, report, caplog):
    """What was learned goes along to the bit; the generators, whose states only their own device knows, begin anew."""
    caplog.set_level("INFO", "raydistill")
    name, shape, cpu = "lenet", (3, 16, 16), torch.device("cpu")
    first = stepped(made(name, made_up_data(shape, device)), 6)
    state = through_a_file(first.state_dict())
    second, twin = (made(name, made_up_data(shape, cpu)) for _ in range(2))
    for distiller in (second, twin):
        distiller.load_state_dict(state)
        assert all(torch.equal(getattr(distiller.learned, p), getattr(first.learned, p).cpu()) for p in PARTS)
    if device.type == "cuda":
        assert any("cuda" in message and "cpu" in message for message in caplog.messages)
    stepped(second, 6)
    stepped(twin, 6)
    assert torch.equal(second.learned.images, twin.learned.images)  # anew, but the same each time
    third = made(name, made_up_data(shape, device))
    third.load_state_dict(through_a_file(second.state_dict()))
    assert torch.equal(third.learned.images.cpu(), second.learned.images)
    assert third.iteration == 12
    stepped(third, 6)
    undisturbed = stepped(made(name, made_up_data(shape, device)), 18)
    apart = (third.learned.images - undisturbed.learned.images).norm() / undisturbed.learned.images.norm()
    report("GPU, CPU, GPU: images against an undisturbed run's", ("norm of the difference",), [[apart.item()]])


def deterministic(device):
    """For each network how far a resumed run is off, and what torch says that it cannot do in one order."""
    import warnings

    from raydistill.system.device import use_precision

    if device.type == "cuda":
        use_precision("float32", device, deterministic=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = {}
    for name in NETWORKS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                apart = resumed_apart(name, made_up_data((3, 16, 16), device))
            except RuntimeError as error:
                apart = math.inf, math.inf
                warnings.warn(f"determinism: {error}", stacklevel=1)
        said = {str(w.message).split(" does not have")[0][:80] for w in caught if "determinis" in str(w.message)}
        found[name] = [*apart, sorted(said)]
    return found


if __name__ == "__main__":
    print(json.dumps(deterministic(torch.device(sys.argv[1]))))
