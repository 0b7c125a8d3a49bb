"""A device that computes wrongly is seen, and one ReLU that switches is not taken for that."""

import pytest
import torch

from raydistill.commands.doctor import method
from raydistill.commands.doctor.finding import Options
from raydistill.kernels.conv_relu_pool import operations as conv_relu_pool
from raydistill.kernels.native import load_kernels
from raydistill.kernels.norm_relu_pool import operations as norm_relu_pool

HERE_AND_NOW = Options(None, "runs")


def one(findings):
    [finding] = findings
    return finding


@pytest.fixture(autouse=True)
def kernels_found_again():
    """Later tests in this process may use our kernels for float64, which a check excludes once and for all."""
    yield
    for search in (load_kernels, conv_relu_pool._kernels, norm_relu_pool._library):
        search.cache_clear()


@pytest.fixture(autouse=True)
def one_thread():
    """As the doctor computes; two would wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_hypergradient_that_has_too_few_digits(monkeypatch):
    monkeypatch.setattr(method, "gpus", lambda: [])
    good = one(method.look_at_hypergradient(HERE_AND_NOW))
    assert good.state == "ok", good
    assert "cosine 1.000000" in good.found
    monkeypatch.setattr(method, "DIGITS", 12.0)  # more than float32 has
    bad = one(method.look_at_hypergradient(HERE_AND_NOW))
    assert not bad.ok
    assert "under 12 digits is wrong" in bad.todo


@pytest.mark.slow
def test_a_seed_that_meets_a_switch_is_not_the_last_word(monkeypatch):
    cases = [method.SmallCase("lenet", seed) for seed in (0, 1)]
    wrong = method.DistilledSet.stack([part.detached() for part in cases[1].expected.unstack()])
    cases[0].__dict__["expected"] = wrong  # of other images
    assert method.best(cases[:1], torch.device("cpu")).digits < 1
    assert method.best(cases, torch.device("cpu")).digits > 5


def test_a_function_that_is_never_replayed():
    finding = method.replayed(torch.device("cpu"))  # where nothing is captured
    assert not finding.ok
    assert "none of 12 calls was a replay" in finding.found
