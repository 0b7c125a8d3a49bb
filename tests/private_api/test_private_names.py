"""No module but those of `raydistill.private_api` touches a private name of Ray, Tune or Optuna: read from the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = ROOT / "raydistill" / "private_api"
USES = sorted(HOME.glob("[!_]*.py"))
OTHERS = sorted(path for path in (ROOT / "raydistill").rglob("*.py") if path.parent != HOME)
LIBRARIES = {"ray", "optuna"}
PARTS = {"_private", "_internal", "_raylet", "execution", "impl", "generated"}  # of modules' names
PUBLIC_LOOK = {  # private all the same: no documentation of Tune has them
    *("best_checkpoint_results", "checkpoint_manager", "error_file", "experiment_driver_staging_path"),
    *("get_cluster_config", "get_run_config", "max_failures", "run_metadata", "syncer", "trial_fs_path"),
    *("create_new_study", "create_new_trial", "set_trial_intermediate_value", "set_trial_state_values"),
}
TEXTS = ("tuner.pkl", "-state-", "_state-", "Failure # ", "ray.tune.", "ray.train.", "ray.autoscaler", "ray.rpc.")
TEXTS += ("ray_current_cluster", "plasma_store", "RAY_TMPDIR", "RAY_AIR_", "RAY_ACCEL_")
ELSEWHERE = {  # in tests and benchmarks, and what for
    "_ot_study": "to ask Optuna what a search has told it, and benchmarks to exchange the sampler",
    "_ot_trials": "likewise",
    "_space": "to add trials to a study",
    "_local_tuner": "to reach the search of a Tuner, which is Tune's own copy",
    "_tune_config": "likewise",
    "_actor_task_failed": "to call what Ray calls",
    "_global_node": "to ask the running Ray",
    "_private": "to read Ray's constants, and where a session is",
    "_raylet": "the keys under which an autoscaler tells Ray its configuration",
    "max_failures": "of FailureConfig, which is public",
    "run_metadata": "of stand-ins for trials",
    "checkpoint_manager": "likewise",
    "error_file": "likewise",
    "trial_fs_path": "likewise",
    "experiment_driver_staging_path": "likewise",
}


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def own(node):
    """Whether it is an attribute of the object or class whose code this is."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def underscored(name):
    return name.startswith("_") and not name.startswith("__")


def private_modules(tree):
    """Modules and names in them that are imported and private."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first in LIBRARIES and any(underscored(part) or part in PARTS for part in rest):
                yield name


PRIVATE = {
    node.attr
    for path in USES
    for node in ast.walk(parsed(path))
    if isinstance(node, ast.Attribute) and underscored(node.attr) and not own(node)
} | PUBLIC_LOOK


def private_attributes(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            if node.attr in PUBLIC_LOOK and own(node):
                continue
            yield node.attr


def test_the_private_names_are_known():
    """So that the other tests look for something."""
    assert {"_ot_study", "_ot_trials", "_local_tuner", "_resetting_trials", "_global_node", "_contains"} <= PRIVATE


def private_texts(tree):
    """Names of files, loggers and variables; a sentence may have them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) == 1:
            yield from (node.value for part in TEXTS if part in node.value)


def test_no_other_module_touches_one():
    found = {}
    for path in OTHERS:
        tree = parsed(path)
        found[path] = {*private_modules(tree), *private_attributes(tree), *private_texts(tree)}
    assert {str(path.relative_to(ROOT)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (
            "from ray.tune.execution.tune_controller import TuneController",
            {"ray.tune.execution.tune_controller.TuneController"},
        ),
        ("import ray._private.state", {"ray._private.state"}),
        ("from ray import tune, _raylet", {"ray._raylet"}),
        ("self._ot_study, trial.storage.trial_fs_path", {"_ot_study", "trial_fs_path"}),
        ("exists('tuner.pkl')", {"tuner.pkl"}),
        ("from ray import tune; study.trials; self.error_file; 'a tuner.pkl in a sentence'", set()),
    ],
)
def test_they_would_be_found(line, names):
    tree = ast.parse(line)
    assert {*private_modules(tree), *private_attributes(tree), *private_texts(tree)} == names


def test_tests_and_benchmarks_touch_those_that_are_listed():
    found = set()
    for folder in ("tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if Path(__file__).parent != path.parent:
                found |= set(private_attributes(parsed(path)))
    assert found - ELSEWHERE.keys() == set()


@pytest.mark.parametrize("path", USES, ids=lambda path: path.stem)
def test_each_use_says_why_and_with_which_versions_it_was_tested(path):
    if path.stem == "versions":
        return
    tree, silent = parsed(path), []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not underscored(node.name):
            text = ast.get_docstring(node) or ""
            if not ("Why:" in text and "Tested: " in text) and "Why, Tested: as of" not in text:
                silent.append(node.name)
    assert silent == []
