"""Settings in sections: short forms, dotted names, one of several sections, and what is said of wrong names."""

import json

import pytest

from raydistill.config.complaints import meant
from raydistill.config.distill_config import DistillConfig
from raydistill.config.marks import DecidesFit, SameForAllTrials
from raydistill.config.overrides import merged, with_overrides
from raydistill.config.pretrain_config import PretrainConfig
from raydistill.config.sections import is_marked, names_in, path_of
from raydistill.config.settings import Settings, flat, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import run_settings
from raydistill.system.errors import UserError

WIDE = {"network": {"name": "convnet", "width": 32}}
OTHER = {"weights": "random", "solver": "ridge", "solver.network": "convnet"}


@pytest.mark.parametrize(
    "values",
    [
        WIDE,
        {"network": "convnet", "network.width": 32},
        {"network.width": 32, "network": "convnet"},
        {"network.name": "convnet", "network.width": 32},
        with_overrides({}, ["network=convnet", "network.width=32"], DistillConfig),
        with_overrides({}, ["network.width=32", "network=convnet"], DistillConfig),
        with_overrides({"network": "convnet"}, ["network.width=32"], DistillConfig),
        with_overrides({"network.width": 16}, ["network=convnet", "network.width=32"], DistillConfig),
        with_overrides(WIDE | {"network.width": 16}, ["network.width=32"], DistillConfig),
        with_overrides({"network": "lenet"}, ["network={name: convnet, width: 32}"], DistillConfig),
        with_overrides({"network": "convnet"}, ["network.width=32"]),
        merged(DistillConfig, {"network": "convnet"}, {"network.width": 32}),
    ],
    ids=str,
)
def test_short_forms_and_dotted_names_go_together(values):
    assert validated(DistillConfig, values) == validated(DistillConfig, WIDE)


def test_a_short_form_leaves_what_is_beside_it():
    values = with_overrides({"network": {"name": "convnet", "init": "kaiming"}}, ["network=lenet"], DistillConfig)
    assert validated(DistillConfig, values).network.init.name == "kaiming"


@pytest.mark.parametrize(
    ("values", "name", "value"),
    [
        ({"network": "torchvision:alexnet"}, "network.name", "torchvision:alexnet"),
        ({"network.init": "normal", "network.init.gain": 0.5}, "network.init.gain", 0.5),
        ({"network": {"init.gain": 0.5}}, "network.init.name", "xavier"),
        ({"labels": "free", "labels.lr": 0.1}, "labels.learned", "free"),
        ({"population": 4}, "population.size", 4),
        ({**OTHER, "solver.network.width": 8}, "solver.network.width", 8),
        ({"weights": "random", "solver": {"name": "ridge", "network": "convnet"}}, "solver.network.name", "convnet"),
        ({"population.spread": 3.0}, "population.size", 1),
        ({"images.init": "noise"}, "images.init.std", 0.2),
        ({"dataset": "hf:x", "data": {"hub.split": "train"}}, "data.hub.split", "train"),
    ],
    ids=str,
)
def test_values_are_kept_in_sections(values, name, value):
    config = validated(DistillConfig, values)
    kept = json.loads(json.dumps(config.model_dump(mode="json")))
    assert flat(kept)[name] == value
    assert validated(DistillConfig, kept) == config
    assert config.changed({}) == config


def test_another_value_for_one_setting():
    config = validated(DistillConfig, WIDE | {"labels": "softmax", "seed": 3})
    assert config.changed({"network.width": 8, "labels": "fixed"}) == validated(
        DistillConfig, {"network": "convnet", "network.width": 8, "seed": 3}
    )
    with pytest.raises(UserError, match=r"^here: network\.width: there is no such setting with network=lenet"):
        config.changed({"network.name": "lenet"}, "here: ")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"width": 3}, "width: there is no such setting; did you mean network.width or solver.network.width?"),
        (
            {"solver": "ridge", "solver.network.width": 3},
            "solver.network.width: there is no such setting with solver.network=lenet; it is one of "
            "solver.network=convnet",
        ),
        ({"network.widht": 3}, "network.widht: there is no such setting; did you mean network.width?"),
        (
            {"network": {"name": "lenet", "widht": 3}},
            "network.widht: there is no such setting; did you mean network.width?",
        ),
        ({"stesp": 3}, "stesp: there is no such setting; did you mean steps?"),
        (
            {"network.lr": 3},
            "network.lr: there is no such setting; did you mean recipe.lr, labels.lr or solver.pool.lr?",
        ),
        ({"steps.x": 3}, "steps.x: there is no such setting; did you mean steps?"),
        ({"data": {"hub": {"splti": "x"}}}, "data.hub.splti: there is no such setting; did you mean data.hub.split?"),
        (
            {"network.width": 3},
            "network.width: there is no such setting with network=lenet; it is one of network=convnet",
        ),
        (
            {"labels.lr": 0.1},
            "labels.lr: there is no such setting with labels=fixed; it is one of labels=softmax or free",
        ),
        (
            {"network": "convnett"},
            "network: should be lenet, alexcifarnet, convnet or torchvision:NAME, not 'convnett'; "
            "did you mean convnet?",
        ),
        ({"network": [1]}, "network: should be lenet, alexcifarnet, convnet or torchvision:NAME, not [1]"),
        ({"labels": None}, "labels: should be fixed, softmax or free, not None"),
        ({"labels": {"learned": "softmax", "lr": -1.0}}, "labels.lr: input should be greater than 0, not -1.0"),
        (
            {"network": {"init": "nromal"}},
            "network.init: should be xavier, kaiming, normal, orthogonal, constant, zero, one or default, "
            "not 'nromal'; did you mean normal?",
        ),
        ({"population": "many"}, "population.size: input should be a valid integer, not 'many'"),
        ({"data": 3}, "data: should be a section of settings, not 3"),
        ({"compile": 3}, "compile: input should be a valid boolean or 'auto', not 3"),
        (
            {"objective": "attack"},
            "objective.attacked: is needed with objective=attack; objective.target: is needed with objective=attack",
        ),
        (
            {"objective": {"name": "attack", "attacked": 1.5, "target": 2}},
            "objective.attacked: input should be a valid integer or a valid string, not 1.5",
        ),
        ({"data.hub.split": "x"}, "data.hub.split: is for dataset=hf:NAME, not digits"),
        ({"objective": "adapt"}, "objective=adapt needs weights=fixed_pretrained or random_pretrained"),
    ],
    ids=str,
)
def test_the_line_for_a_wrong_setting(values, line):
    with pytest.raises(UserError) as error:
        validated(DistillConfig, values)
    assert str(error.value) == line


OLD = {
    "width": "network.width",
    "init": "network.init",
    "init_gain": "network.init.gain",
    "image_size": "data.image_size",
    "split_seed": "data.split_seed",
    "hf_config": "data.hub.config",
    "hf_split": "data.hub.split",
    "image_init": "images.init",
    "image_std": "images.init.std",
    "learn_images": "images.learned",
    "images_per_step": "images.per_step",
    "label_init": "labels.init",
    "label_lr": "labels.lr",
    "rate_lr": "outer.rate_lr",
    "outer_schedule": "outer.schedule",
    "clip": "outer.clip",
    "population_spread": "population.spread",
}


@pytest.mark.parametrize("name", OLD)
def test_names_that_are_nearly_right_find_theirs(name):
    assert OLD[name] in meant(DistillConfig, name)


def test_a_wrong_name_for_a_bank():
    with pytest.raises(UserError, match=r"^crop: there is no such setting$|did you mean|there are"):
        validated(PretrainConfig, {"crop": 1})
    with pytest.raises(UserError, match=r"^augment: there is no such setting; did you mean data\.augment\?$"):
        validated(PretrainConfig, {"augment": {"shift": 4}})


@pytest.mark.parametrize("name", ["x." * 10_000 + "x", "network." + "x" * 10_000, "network" + ".x" * 10_000])
def test_absurd_names_are_cut(name):
    with pytest.raises(UserError) as error:
        validated(DistillConfig, {name: 3})
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("model", [DistillConfig, PretrainConfig, SweepConfig])
def test_every_setting_is_documented(model):
    for name in names_in(model):
        assert all(field.description for field in path_of(model, name)[-1]), name


SWEEP = {"name": "t", "search": {"steps": {"int": [1, 3]}}}
RATE = {"loguniform": [0.001, 0.1]}
SOFT = {"choice": ["softmax", "free"]}


@pytest.mark.parametrize(
    "update",
    [
        {"base": {"network": "convnet"}, "search": {"network.width": {"int": [8, 32]}}},
        {"base": {"network": {"name": "convnet"}}, "search": {"network": {"width": {"int": [8, 32]}}}},
        {"base": {"labels": "softmax"}, "search": {"labels.lr": RATE}, "known_good": [{"labels.lr": 0.01}]},
        {"search": {"labels": SOFT, "labels.lr": RATE}, "known_good": [{"labels": "free", "labels.lr": 0.01}]},
        {"base": {"network.init": "kaiming"}, "search": {"network": {"choice": ["lenet", "convnet"]}}},
        {"search": {"population": {"int": [1, 4]}, "population.spread": {"uniform": [1.0, 3.0]}}},
    ],
    ids=str,
)
def test_sweeps_search_in_sections(update):
    config = validated(SweepConfig, SWEEP | update)
    assert validated(SweepConfig, json.loads(json.dumps(config.model_dump(mode="json")))) == config
    for end in (0, -1):
        point = {name: distribution.ends[end] for name, distribution in config.search.items()}
        values = flat(config.trial_config(point).model_dump())
        assert all(point[name] in (values.get(name), values.get(f"{name}.name"), *values.values()) for name in point)
        assert values["network.init.name"] == ("kaiming" if "network.init" in config.base else "xavier")


@pytest.mark.parametrize(
    ("update", "line"),
    [
        (
            {"search": {"network.width": {"int": [8, 32]}}},
            "search.network.width: network.width: there is no such setting with network=lenet",
        ),
        (
            {"search": {"labels": {"choice": ["fixed", "free"]}, "labels.lr": RATE}},
            "search.labels.lr: labels.lr: there is no such setting with labels=fixed",
        ),
        ({"search": {"labels.lr": RATE}, "base": {"labels": {"lr": 0.1}}}, "search.labels.lr: is in base as well"),
        (
            {"search": {"network": {"choice": ["lenet"]}}, "base": {"network": "convnet"}},
            "search.network: is in base as well",
        ),
        (
            {"search": {"network": {"choice": ["lenet"]}}, "base": {"network.name": "convnet"}},
            "search.network: is in base as well",
        ),
        (
            {"search": {"width": {"int": [8, 32]}}},
            "search.width: there is no such setting; did you mean network.width or solver.network.width?",
        ),
        ({"search": {"network.name": {"choice": ["lenet"]}}}, "search.network.name: is named network in a search"),
        (
            {"search": {"images": {"choice": ["noise"]}}},
            "search.images: is a section; name its settings, as images.init",
        ),
        (
            {"search": {"network": {"choice": [{"name": "lenet"}]}}},
            "search.network: choice: should hold words and numbers alone",
        ),
        ({"search": {"data.hub.split": {"choice": ["a"]}}}, "search.data.hub.split: is the same for all trials"),
        (
            {"base": {"width": 3}},
            "base: width: there is no such setting; did you mean network.width or solver.network.width?",
        ),
        ({"dataset": "mnist"}, "dataset: there is no such setting; did you mean base.dataset?"),
        ({"known_good": [{"labels.lr": 1}]}, "known_good: labels.lr is not searched (search has steps)"),
        (
            {"search": {"labels": SOFT, "labels.lr": RATE}, "known_good": [{"labels.lr": 0.01}]},
            "known_good: labels.lr: there is no such setting with labels=fixed",
        ),
        (
            {"search": {"labels": SOFT, "labels.lr": RATE}, "known_good": [{"labels": "free"}]},
            "known_good: labels.lr=None is outside search.labels.lr",
        ),
        (
            {"scheduler": {"asha": {"grace": 0}}},
            "scheduler.asha.grace: input should be greater than or equal to 1, not 0",
        ),
        ({"scheduler": 3}, "scheduler: should be a section of settings, not 3"),
    ],
    ids=str,
)
def test_the_line_for_a_wrong_sweep(update, line):
    with pytest.raises(UserError) as error:
        validated(SweepConfig, SWEEP | update)
    assert str(error.value).startswith(line)


def test_overrides_of_a_search():
    values = SWEEP | {"base": {"labels": "softmax"}, "search": {"labels.lr": RATE}}
    typed = ["search.labels.lr.loguniform=[0.01, 0.1]", "search.labels.init={choice: [onehot, uniform]}"]
    config = validated(SweepConfig, with_overrides(values, [*typed, "base.labels=free"], SweepConfig))
    assert {name: list(found.ends) for name, found in config.search.items()} == {
        "labels.lr": [0.01, 0.1],
        "labels.init": ["onehot", "uniform"],
    }
    assert config.trial_config({"labels.lr": 0.05}).labels.model_dump() == {
        "init": "onehot",
        "learned": "free",
        "lr": 0.05,
    }


def test_distill_takes_a_point_in_sections(tmp_path):
    values = SWEEP | {"base": {"labels": "softmax"}, "search": {"labels.lr": RATE}, "known_good": [{"labels.lr": 0.01}]}
    config = validated(DistillConfig, run_settings(values, tmp_path / "x.yaml"))
    assert config.labels.model_dump() == {"init": "onehot", "learned": "softmax", "lr": 0.01}


def test_marks_say_what_a_sweep_may_do():
    same = {
        name.partition(".")[2] or name
        for name in names_in(DistillConfig)
        if is_marked(DistillConfig, name, SameForAllTrials)
    }
    assert same == {
        *("dataset", "image_column", "label_column", "image_size", "channels", "background", "zca"),
        *("hub", "hub.config", "hub.revision", "hub.split", "val_fraction", "split_seed"),
        *("device", "iterations", "eval_every", "bank", "workers"),
    }
    fit = {name for name in names_in(DistillConfig) if is_marked(DistillConfig, name, DecidesFit)}
    assert {name.partition(".")[0] for name in fit} == {
        *("data", "network", "weights", "objective", "train_nets", "solver", "recipe")
    }
    assert {name for name in fit if name.startswith("data")} == {
        f"data.augment.{n}" for n in ("shift", "rotate", "scale")
    }
    assert {"network.width", "network.init.gain", "objective.target"} <= fit


def test_settings_are_plain_python_too():
    class Inner(Settings):
        """A section."""

        size: int = 1

    class Outer(Settings):
        """Holds it."""

        inner: Inner = Inner()

    assert Outer(**{"inner.size": 2}).inner == Inner(size=2)
    assert Outer(inner=Inner(size=2)).inner.size == 2
