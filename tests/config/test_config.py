"""Settings: what is accepted, and what is said of the rest."""

from pathlib import Path

import pytest

from raydistill.config.distill_config import DistillConfig
from raydistill.config.overrides import with_overrides
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import run_settings
from raydistill.system.errors import UserError

SWEEP = {"name": "t", "base": {"dataset": "digits"}, "search": {"steps": {"int": [1, 3]}}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step": 3}, ["step: there is no such setting", "steps"]),
        ({"steps": "3"}, ["steps", "valid integer", "'3'"]),
        ({"steps": 0}, ["steps", "greater than or equal to 1", "0"]),
        ({"steps": 1.5}, ["steps", "1.5"]),
        ({"inner_lr": -1}, ["inner_lr", "greater than 0"]),
        ({"inner_lr": float("inf")}, ["inner_lr", "finite", "inf"]),
        ({"test_nets": 10**12}, ["test_nets", "less than or equal to 10000"]),
        ({f"x{i}": i for i in range(10_000)}, ["x0: there is no such setting"]),
        ({"weights": "pretrained"}, ["weights", "'fixed', 'random'", "pretrained"]),
        ({"weights": "fixed", "train_nets": 4}, ["train_nets=4 needs weights=random"]),
        ({"data.val_fraction": 1.0}, ["data.val_fraction", "less than 1"]),
    ],
)
def test_bad_settings_are_named(values, words):
    with pytest.raises(UserError) as error:
        validated(DistillConfig, values)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 4000
    for word in words:
        assert word in str(error.value)


def test_overrides_nest_and_read_yaml_values():
    values = {"budget": {"trials": 64, "hours": 2}, "name": "a"}
    changed = with_overrides(
        values, ["budget.trials=8", "base.dataset=parquet:x", "base.inner_lr=1e-3", "outer.clip=null"]
    )
    assert changed == {
        "budget": {"trials": 8, "hours": 2},
        "name": "a",
        "base": {"dataset": "parquet:x", "inner_lr": 0.001},
        "outer": {"clip": None},
    }
    assert values == {"budget": {"trials": 64, "hours": 2}, "name": "a"}


@pytest.mark.parametrize("override", ["trials", "=3", "a=[1"])
def test_bad_overrides(override):
    with pytest.raises(UserError, match="--set"):
        with_overrides({}, [override])


@pytest.mark.parametrize(
    ("text", "words"), [("[1, 2]", "name: value"), ("a: [1", "not valid YAML"), ("x: !!python/name:os.system", "YAML")]
)
def test_bad_yaml_files(tmp_path, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_yaml(path)


def test_missing_yaml_file(tmp_path):
    with pytest.raises(UserError, match=r"b\.yaml: no such file"):
        read_yaml(tmp_path / "b.yaml")


TWO = {"workers": 2, "train_nets": 2, "weights": "random"}


@pytest.mark.parametrize(
    "update",
    [
        *({"resources": {"gpu": gpu}} for gpu in (0, 0.25, 1, 2, "auto")),
        *({"resources": {"gpu": gpu}, "base": TWO} for gpu in (0, 1)),
        {"resources": {"gpu": 1}, "base": {"device": "cuda"}},
    ],
)
def test_what_trials_may_have_of_gpus(update):
    assert validated(SweepConfig, SWEEP | update).resources.gpu == update["resources"]["gpu"]


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"search": {}}, ["search"]),
        ({"search": {"stepz": {"int": [1, 3]}}}, ["search.stepz", "no such setting"]),
        ({"search": {"steps": {"int": [3, 1]}}}, ["search.steps", "low 3 is above high 1"]),
        ({"search": {"steps": {"integer": [3, 1]}}}, ["search.steps", "loguniform"]),
        ({"search": {"steps": {"uniform": [1.5, 2.5]}}}, ["search.steps", "valid integer"]),
        ({"search": {"steps": {"int": [0, 3]}}}, ["search.steps", "greater than or equal to 1"]),
        ({"search": {"inner_lr": {"loguniform": [0, 1]}}}, ["search.inner_lr", "above 0"]),
        ({"search": {"dataset": {"choice": ["digits", "mnist"]}}}, ["search.dataset", "put it in base"]),
        ({"base": {"steps": 2}}, ["search.steps", "base as well"]),
        ({"base": {"datset": "digits"}}, ["datset", "no such setting"]),
        ({"base": {"iterations": 5}}, ["base.iterations", "budget.iterations"]),
        ({"objectives": {"accuracy": "max"}}, ["objectives", "val_accuracy"]),
        ({"objectives": {"val_accuracy": "best"}}, ["objectives.val_accuracy", "'max' or 'min'"]),
        ({"known_good": [{"epochs": 2}]}, ["known_good", "epochs is not searched"]),
        ({"known_good": [{"steps": 9}]}, ["known_good", "steps=9 is outside"]),
        ({"budget": {"trials": 0}}, ["budget.trials", "greater than or equal to 1"]),
        ({"budget": {"concurrent": 0}}, ["budget.concurrent", "at least 1"]),
        ({"scheduler": {"asha": {"grace": 0}}}, ["scheduler", "grace"]),
        ({"scheduler": {"hyperband": {}}}, ["scheduler", "name one", "pareto_asha"]),
        ({"scheduler": {"asha": {}, "pareto_asha": {}}}, ["scheduler", "name one"]),
        ({"scheduler": {"asha": None}}, ["scheduler", "name one"]),
        ({"scheduler": "asha"}, ["scheduler", "'none'", "'asha'"]),
        (
            {"scheduler": {"pareto_asha": {"reduction": 1}}},
            ["scheduler.pareto_asha.reduction", "greater than 1"],
        ),
        (
            {"resources": {"gpu": 1.5}},
            ["resources.gpu", "1.5 should be a share of one GPU, up to 1, or a whole"],
        ),
        ({"resources": {"gpu": 0.5}, "base": {"device": "cpu"}}, ["resources.gpu=0.5", "base.device=cpu"]),
        ({"base": {"device": "cuda"}}, ["base.device=cuda", "resources.gpu=0 gives trials none"]),
        ({"base": {"device": "cuda:1"}, "resources": {"gpu": 1}}, ["base.device=cuda:1", "Ray chooses"]),
        ({"resources": {"gpu": 0.5}, "base": TWO}, ["resources.gpu=0.5", "base.workers=2 needs a whole GPU"]),
        ({"resources": {"gpu": "auto"}, "base": TWO}, ["resources.gpu=auto", "base.workers=2 needs a whole GPU"]),
        ({"name": "a/b"}, ["name", "pattern"]),
        ({"storrage": "x"}, ["storrage", "no such setting"]),
    ],
)
def test_bad_sweeps_are_named(update, words):
    with pytest.raises(UserError) as error:
        validated(SweepConfig, SWEEP | update)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_known_good_points_are_filled_from_base_and_defaults():
    search = {"steps": {"int": [1, 3]}, "epochs": {"int": [1, 5]}, "inner_lr": {"loguniform": [0.001, 1.0]}}
    config = validated(SweepConfig, {"name": "t", "search": search, "known_good": [{"steps": 2}]})
    default = DistillConfig()
    assert config.full_point({"steps": 2}) == {"steps": 2, "epochs": default.epochs, "inner_lr": default.inner_lr}


SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.mark.parametrize("path", sorted(SWEEPS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_ready_sweeps_and_banks_are_valid(path):
    if path.parent.name == "banks":
        validated(PretrainConfig, read_yaml(path))
        return
    sweep = validated(SweepConfig, read_yaml(path))
    assert validated(DistillConfig, sweep.first_point()).iterations == sweep.budget.iterations
    assert (sweep.published is not None) == (path.parent.name in ("paper", "cpu", "gpu"))


def test_distill_takes_the_first_known_good_point_of_a_sweep():
    values = SWEEP | {"known_good": [{"steps": 2}, {"steps": 3}], "budget": {"iterations": 7}}
    assert run_settings(values, Path("x.yaml")) == {"dataset": "digits", "iterations": 7, "steps": 2}
    assert run_settings({"steps": 3}, Path("x.yaml")) == {"steps": 3}
    with pytest.raises(UserError, match=r"x\.yaml: known_good: steps=9 is outside"):
        run_settings(SWEEP | {"known_good": [{"steps": 9}]}, Path("x.yaml"))
