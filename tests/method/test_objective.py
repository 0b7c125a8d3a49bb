"""What is asked of the trained network, and what is measured of it."""

import pytest
import torch

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.evaluation.accuracy import confusions, evaluate_networks
from raydistill.method.objective import CLASSIFY, Objective, objective_of
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.system.errors import UserError

NAMES = ("plane", "car", "bird")
PRETRAINED = {"weights": "fixed_pretrained", "bank": "b"}


def attack(attacked, target):
    return validated(
        DistillConfig, {**PRETRAINED, "objective": {"name": "attack", "attacked": attacked, "target": target}}
    )


def test_wanted_labels():
    labels = torch.tensor([0, 1, 2, 0])
    assert CLASSIFY.wanted(labels).tolist() == [0, 1, 2, 0]
    assert Objective((0, 2)).wanted(labels).tolist() == [2, 1, 2, 2]


@pytest.mark.parametrize(("attacked", "target"), [("plane", "bird"), (0, 2), ("plane", 2)])
def test_classes_by_name_and_number(attacked, target):
    assert objective_of(attack(attacked, target), NAMES) == Objective((0, 2))
    assert objective_of(DistillConfig(), NAMES) == CLASSIFY


@pytest.mark.parametrize(
    ("attacked", "target", "words"),
    [
        ("ship", "bird", "objective.attacked=ship: there is no such class .there are plane, car, bird"),
        ("plane", 3, "objective.target=3: there is no such class"),
        (-1, 0, "objective.attacked=-1"),
        ("plane", 0, "objective.target=0: is objective.attacked"),
    ],
)
def test_classes_that_do_not_exist(attacked, target, words):
    with pytest.raises(UserError, match=words):
        objective_of(attack(attacked, target), NAMES)


def test_measures_against_counting_by_hand(digits):
    """The confusion of real networks, and the shares in it, against a loop over images."""
    network = build_network(DistillConfig(), digits.image_shape, 10)
    weights = network.initial_weights(3, named_generator(0, "w"))
    objective = Objective((7, 2))
    confusion, losses = confusions(network, weights, digits.test, objective)
    measures = objective.measures(confusion)
    truth = digits.test.labels
    for n, w in enumerate(weights):
        logits = network(w, digits.test.images[:])
        taken = logits.argmax(1)
        for true in range(10):
            assert confusion[n, true].tolist() == torch.bincount(taken[truth == true], minlength=10).tolist()
        share = (taken[truth == 7] == 2).double().mean().item()
        others = (taken == truth)[truth != 7].double().mean().item()
        assert measures["attack_success"][n].item() == pytest.approx(share)
        assert measures["class_accuracy"][n].item() == pytest.approx((taken[truth == 7] == 7).double().mean().item())
        assert measures["other_accuracy"][n].item() == pytest.approx(others)
        assert measures["accuracy"][n].item() == pytest.approx((share + others) / 2)
        expected = torch.nn.functional.cross_entropy(logits, objective.wanted(truth))
        assert losses[n].item() == pytest.approx(expected.item(), rel=1e-4)


def test_evaluation_carries_the_attack(digits):
    network = build_network(DistillConfig(), digits.image_shape, 10)
    weights = network.initial_weights(3, named_generator(0, "w"))
    metrics = evaluate_networks(network, weights, digits.test, Objective((7, 2))).metrics("test_", "_before")
    assert set(metrics) == {
        f"test_{name}{std}_before"
        for name in ("accuracy", "class_accuracy", "attack_success", "other_accuracy")
        for std in ("", "_std")
    }
    assert set(evaluate_networks(network, weights, digits.test).metrics("val_")) == {"val_accuracy", "val_accuracy_std"}


def test_half_of_the_real_images_in_an_attack_are_of_the_class(digits, small):
    """And, by chance, some of the others: 0.5 + 0.5 / 10."""
    from raydistill.method import Distiller

    config = small.model_copy(update={"batch_size": 2000})
    network = build_network(config, digits.image_shape, 10)
    labels = Distiller(config, network, digits.train, 10, Objective((7, 2)))._real_batch()[1]
    assert len(labels) == 2000
    assert (labels == 7).float().mean().item() == pytest.approx(0.55, abs=0.03)
    labels = Distiller(config, network, digits.train, 10)._real_batch()[1]
    assert (labels == 7).float().mean().item() == pytest.approx(0.1, abs=0.03)
