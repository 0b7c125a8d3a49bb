"""What two hypergradients are compared by, on numbers whose answer is known."""

import math

import pytest
import torch

from raydistill.commands.doctor.agreement import agreement, tensor_agreement
from raydistill.method import DistilledSet


def test_longer_by_a_thousandth():
    expected = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = tensor_agreement(expected * 1.001, expected)
    assert found.error == pytest.approx(1e-3)
    assert found.digits == pytest.approx(3)
    assert found.largest == pytest.approx(1e-3)
    assert found.cosine == pytest.approx(1, abs=1e-12)


def test_another_direction():
    found = tensor_agreement(torch.tensor([0.0, 2.0]), torch.tensor([2.0, 0.0]))
    assert (found.cosine, found.largest, found.digits) == (0, 1, 0)
    assert found.error == pytest.approx(math.sqrt(2))


def test_one_value_that_switched_shows_in_the_largest_difference():
    expected = torch.ones(10_000)
    switched = expected.clone()
    switched[7] = 0.5
    found = tensor_agreement(switched, expected)
    assert found.largest == 0.5
    assert found.error == pytest.approx(0.005)
    assert 1 - found.cosine < 1e-4


def test_of_several_parts_the_worst():
    parts = [torch.full((2, 3), value) for value in (1.0, 1e-6, 5.0)]
    expected = DistilledSet(*parts)
    assert agreement(expected, expected).digits == 16
    wrong = DistilledSet(parts[0], parts[1] * 1.1, parts[2])  # a small one, lost among the others' norm
    assert agreement(wrong, expected).error == pytest.approx(0.1)
    turned = DistilledSet(parts[0], -parts[1], parts[2])
    assert agreement(turned, expected).cosine == pytest.approx(-1)


def test_what_is_no_number_never_agrees():
    expected = DistilledSet(*(torch.ones(2) for _ in range(3)))
    broken = DistilledSet(torch.ones(2), torch.tensor([1.0, math.nan]), torch.ones(2))
    assert agreement(broken, expected).digits == 0
    assert math.isnan(agreement(broken, expected).cosine)
