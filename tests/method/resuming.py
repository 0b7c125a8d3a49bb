"""A Distiller that was stopped and resumed, beside one that was not."""

import io

import torch

from raydistill.evaluation.problem import Problem


def make(config, data):
    return Problem.of(config, data).distiller()


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def stepped(config, data, iterations):
    distiller = make(config, data)
    for _ in range(iterations):
        distiller.step()
    return distiller


def whole_and_resumed(config, data, iterations, stop):
    """One after all iterations, and one that resumed after `stop` of them; their sets are equal, bit for bit."""
    whole = stepped(config, data, iterations)
    state = through_a_file(stepped(config, data, stop).state_dict())
    resumed = stepped(config.model_copy(update={"seed": config.seed}), data, 2)  # a state that loading has to replace
    resumed.load_state_dict(state)
    for _ in range(iterations - stop):
        resumed.step()
    assert resumed.iteration == iterations
    for name in ("images", "labels", "raw_rates"):
        assert torch.equal(getattr(whole.learned, name), getattr(resumed.learned, name)), name
        assert torch.equal(getattr(whole.averaged, name), getattr(resumed.averaged, name)), name
    return whole, resumed
