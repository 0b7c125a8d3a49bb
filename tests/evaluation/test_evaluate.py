"""Evaluation."""

import sys
from dataclasses import replace

import pytest
import torch

from raydistill import evaluate
from raydistill.config.distill_config import DistillConfig
from raydistill.evaluation.accuracy import Evaluation, _in_chunks, evaluate_set, score, train_networks
from raydistill.method.initial_weights import RandomWeights
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.runs.distillation import distill
from raydistill.system.errors import UserError


@pytest.fixture(scope="module")
def learned(digits):
    config = DistillConfig(
        iterations=40, eval_every=20, batch_size=128, outer_lr=0.05, inner_lr=0.1, weights="random", test_nets=5
    )
    return distill(config.changed({"recipe": "schedule", "choice.steps": 3}), data=digits)


def test_accuracy_is_that_of_an_ordinary_torch_loop(learned, digits):
    """Trains the plain module with torch.optim.SGD on the artifact's batches, from the same weights."""
    from raydistill.networks.lenet import LeNet

    network = build_network(learned.config, digits.image_shape, 10)
    starts = RandomWeights(network).sample(3, named_generator(7, "w"))
    result = evaluate_set(network, learned.distilled, starts, digits.test)
    accuracies = []
    for start in starts:
        module = LeNet(digits.image_shape, 10)
        module.load_state_dict(network.unflatten(start))
        for images, labels, rate in learned.distilled.batches():
            optimizer = torch.optim.SGD(module.parameters(), lr=rate)
            torch.nn.functional.cross_entropy(module(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        right = module(digits.test.images[:]).argmax(1) == digits.test.labels
        accuracies.append(right.float().mean().item())
    assert result.accuracy == pytest.approx(sum(accuracies) / 3, abs=0.006)  # two images of 360, for rounding
    assert result.accuracy_std == pytest.approx(torch.tensor(accuracies).std().item(), abs=0.006)
    assert result.nets == 3


def test_networks_trained_at_once_are_those_trained_alone(learned, digits):
    network = build_network(learned.config, digits.image_shape, 10)
    starts = RandomWeights(network).sample(18, named_generator(0, "w"))  # more than one chunk
    together = list(train_networks(network, learned.distilled, starts))
    assert len(together) == 18
    for start, trained in zip(starts, together, strict=True):
        [alone] = train_networks(network, learned.distilled, start[None])
        assert torch.allclose(alone, trained, atol=1e-5)


def test_chunks_cover_the_whole_split(digits, monkeypatch):
    monkeypatch.setattr(sys.modules["raydistill.evaluation.accuracy"], "TEST_IMAGES", 7)
    monkeypatch.setattr(sys.modules["raydistill.evaluation.accuracy"], "TEST_NETWORKS", 2)
    network = build_network(DistillConfig(), digits.image_shape, 10)
    weights = network.initial_weights(3, named_generator(0, "w"))
    accuracies, losses = score(network, weights, digits.test)
    assert accuracies.shape == losses.shape == (3,)
    for w, accuracy, loss in zip(weights, accuracies, losses, strict=True):
        logits = network(w, digits.test.images[:])
        assert accuracy == (logits.argmax(1) == digits.test.labels).float().mean()
        assert torch.allclose(loss, torch.nn.functional.cross_entropy(logits, digits.test.labels))


def test_what_was_made_in_tf32_is_tested_anywhere(learned, digits):
    rounded = replace(learned, config=learned.config.model_copy(update={"precision": "tf32"}))
    assert evaluate(rounded, nets=2, data=digits, device="cpu") == evaluate(learned, nets=2, data=digits, device="cpu")


def test_a_gpu_that_is_too_small_gets_fewer_networks_at_a_time():
    """As many as it can take, each once; where it cannot take one, that is the error."""
    sizes = []

    def squared(chunk, most=3):
        sizes.append(len(chunk))
        if len(chunk) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return chunk.square()

    weights = torch.arange(21.0)[:, None]
    assert torch.equal(torch.cat(_in_chunks(squared, weights, 16)), weights.square())
    assert sizes == [16, 8, 4, *[2] * 10, 1]
    with pytest.raises(torch.OutOfMemoryError):
        _in_chunks(lambda chunk: squared(chunk, 0), weights, 16)
    with pytest.raises(RuntimeError, match="sizes differ"):
        _in_chunks(lambda chunk: (_ for _ in ()).throw(RuntimeError("sizes differ")), weights, 16)


@pytest.mark.slow
def test_public_evaluate(learned, digits):
    result = evaluate(learned, nets=4, data=digits)
    assert result.nets == 4
    assert evaluate(learned, nets=4, data=digits) == result
    assert evaluate(learned, nets=4, seed=1, data=digits) != result
    other = evaluate(learned, network="convnet", nets=2, data=digits)
    assert 0 <= other.accuracy <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": "fixed"}, "no initial weights"),
        ({"network": "resnet"}, "network: should be lenet"),
        ({"nets": 0}, "nets=0"),
        ({"device": "cuda:99"}, "device=cuda:99"),
        ({"weights": "warm"}, "weights=warm"),
    ],
)
def test_what_does_not_fit_is_said(learned, digits, arguments, words):
    with pytest.raises(UserError, match=words):
        evaluate(learned, data=digits, **arguments)


def test_mean_and_deviation_are_of_the_sample():
    result = Evaluation.of(torch.tensor([0.5, 0.7]), torch.tensor([1.0, 2.0]))
    assert result.accuracy == pytest.approx(0.6)
    assert result.accuracy_std == pytest.approx(0.1414, abs=1e-4)
    assert Evaluation.of(torch.tensor([0.5]), torch.tensor([1.0])).accuracy_std == 0
    assert Evaluation.of(torch.tensor([0.1, 0.5]), torch.tensor([float("nan"), 2.0])).loss == pytest.approx(500001)
