"""A distilled set beside its baselines, as `compare` and the command find it."""

import pytest

from raydistill import compare, evaluate
from raydistill.config.distill_config import DistillConfig
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.recipe_settings import ScheduleRecipe
from raydistill.evaluation.artifact_problem import EvalOptions, problem_of_artifact
from raydistill.evaluation.baselines import random_real
from raydistill.evaluation.comparison import read_source
from raydistill.evaluation.testing import final_test_of_artifact
from raydistill.runs.distillation import distill
from raydistill.runs.pretraining import pretrain
from raydistill.store.artifact import save
from raydistill.system.errors import UserError

ATTACK = {"objective": {"name": "attack", "attacked": 3, "target": 5}, "weights": "random_pretrained"}


@pytest.fixture(scope="module")
def bank(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    pretrain(PretrainConfig(nets=6, chunk=6, epochs=1, batch_size=64), folder, data=digits)
    return str(folder)


@pytest.fixture(params=["fixed", "random", "attack", "soft"])
def config(request, small, bank):
    updates = {
        "fixed": {"weights": "fixed"},
        "random": {"weights": "random", "seed": 3},
        "attack": ATTACK | {"bank": bank},
        "soft": {"labels": "softmax", "images.per_step": 4},
    }
    return DistillConfig(**(small.model_dump() | updates[request.param]))


@pytest.mark.slow
def test_an_artifact_beside_its_baselines(config, digits):
    """The distilled and random real rows are what the run itself reported."""
    artifact = distill(config, data=digits)
    found = compare(artifact, draws=8, data=digits)
    assert list(found.rows) == ["distilled", "random_real", "optimized_real", "k_means", "average"]
    assert found.rows["distilled"].gradient.accuracy == artifact.metrics["test_accuracy"]
    assert found.rows["random_real"].gradient.accuracy == artifact.metrics["baseline_same_steps"]


@pytest.mark.slow
@pytest.mark.parametrize("update", [{"weights": "random", "seed": 3}, {"images_per_class": 2, "steps": 1}])
def test_settings_give_the_baselines_of_their_artifact(small, digits, update):
    config = small.changed(update | {"recipe": "schedule"})
    of_settings, of_artifact = (compare(s, draws=2, data=digits) for s in (config, distill(config, data=digits)))
    assert {"distilled": of_artifact.rows["distilled"], **of_settings.rows} == of_artifact.rows
    assert of_settings.num_images == of_artifact.num_images == 20


def test_json_holds_plain_values(small, digits):
    values = compare(small, draws=2, data=digits).to_json()
    assert (values["num_images"], values["dataset"], values["network"]) == (20, "digits", {"name": "lenet"})
    for row in values["baselines"].values():
        assert all(isinstance(v, int | float) for part in row.values() for v in part.values())


@pytest.mark.slow
def test_random_real_images_are_trained_on_as_often_as_the_distilled(small, digits):
    artifact = distill(small, data=digits)
    options = EvalOptions(epochs=5, recipe="schedule", device="cpu")
    found, _, _ = final_test_of_artifact(artifact, options)
    result = evaluate(artifact, epochs=5, recipe="schedule", data=digits)
    assert found.metrics.items() >= result.metrics("test_").items()
    problem, _ = problem_of_artifact(artifact, options, digits)
    same, best, chosen = random_real(problem, artifact.distilled.with_epochs(5), ScheduleRecipe())
    assert found.metrics["grad_steps"] == 10
    assert found.metrics["baseline_same_steps"] == same.accuracy
    assert found.metrics["baseline_best_recipe"] == best.accuracy
    assert found.baseline_recipe == chosen.recipe


def test_sources(small, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(distill(small, data=digits), "one.distilled")
    assert read_source("one.distilled", []).config == small
    (tmp_path / "settings.txt").write_text("steps: 4\n")
    assert read_source("settings.txt", ["epochs=2"]) == DistillConfig(steps=4, epochs=2)
    assert read_source(None, ["epochs=2"]) == DistillConfig(epochs=2)
    for name, words in (("none.yml", "no such file"), ("none", "manifest.json"), ("s4://x", "s4://x")):
        with pytest.raises(UserError, match=words):
            read_source(name, [])


def test_draws_of_nothing(small, digits):
    with pytest.raises(UserError, match="draws=-1: at least 1"):
        compare(small, draws=-1, data=digits)
