"""The simulated sweeps of the benchmark."""

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume
from simulate import formula, hypervolume, quality, simulated

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig

SEARCH = {
    "images_per_class": {"int": [1, 5]},
    "steps": {"int": [1, 10]},
    "epochs": {"int": [1, 5]},
    "inner_lr": {"loguniform": [0.001, 1.0]},
    "outer_lr": {"loguniform": [0.002, 0.2]},
}


@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_against_optuna_and_by_counting(seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 12, (25, 2))  # some outside the reference point, some equal
    reference = np.array([10, 9])
    cells = {(x, y) for a, b in points for x in range(a, 10) for y in range(b, 9)}
    assert hypervolume(points.tolist(), reference.tolist()) == len(cells)
    inside = np.minimum(points, reference).astype(float)
    assert hypervolume(points.tolist(), reference.tolist()) == compute_hypervolume(inside, reference.astype(float))
    smooth = rng.random((30, 2))
    assert hypervolume(smooth.tolist(), (0.9, 0.8)) == pytest.approx(
        compute_hypervolume(np.minimum(smooth, [0.9, 0.8]), np.array([0.9, 0.8]))
    )
    assert hypervolume([], (1, 1)) == 0


def test_quality_goes_from_nothing_to_all():
    assert quality([(1.0, 0.1, 10)], 2, 1000) == 0  # as good as chance
    assert quality([(1.0, 1.0, 10)], 2, 1000) == pytest.approx(1)
    assert quality([(1.0, 1.0, 100)], 2, 1000) == pytest.approx(0.5)  # half way, in the logarithm
    assert quality([(1.0, 1.0, 10)], 0.5, 1000) == 0  # not yet


@pytest.mark.parametrize("scheduler", ["none", {"asha": {"grace": 100}}, {"pareto_asha": {"grace": 100}}])
def test_a_simulated_sweep_spends_its_seconds(scheduler):
    config = validated(
        SweepConfig, {"name": "s", "search": SEARCH, "budget": {"iterations": 1000}, "scheduler": scheduler}
    )

    def curves(settings):
        return formula(settings, 0, 1000)

    events, begun, stopped = simulated(config, curves, "random", 0, 1000.0, 4)
    assert events == simulated(config, curves, "random", 0, 1000.0, 4)[0]
    times = [seconds for seconds, _, _ in events]
    assert times == sorted(times)
    assert 900 < times[-1] <= 1000
    assert begun > 4
    assert (stopped > begun / 2) == (scheduler != "none")
