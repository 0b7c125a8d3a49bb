"""What a sweep's result says in JSON."""

import json
from dataclasses import replace

from played import CONFIG

from raydistill.sweep.reporting.result import SweepResult, front_entry
from raydistill.sweep.trial_row import TrialRow

ROW = TrialRow(
    "a",
    "TERMINATED",
    {"steps": 2},
    val_accuracy=0.5,
    val_accuracy_std=0.25,
    num_images=20,
    iterations=40,
    diverged=False,
    artifact="t/front/trial-a.distilled",
    tested={"test_accuracy": 0.75, "nets": 4, "baseline_same_steps": 0.125, "baseline_best_recipe": 0.25},
)
UNTESTED = replace(ROW, tested={}, test_error="its GPU has too little memory")
KNOWN = {
    "num_images": 20,
    "iterations": 40,
    "diverged": False,
    "val_accuracy": 0.5,
    "val_accuracy_std": 0.25,
    "trial": "a",
    "config": {"steps": 2},
    "error": "",
    "artifact": "t/front/trial-a.distilled",
}


def test_front_json_holds_the_trial_and_its_final_test():
    assert front_entry(ROW, CONFIG.objectives) == KNOWN | ROW.tested
    assert front_entry(UNTESTED, CONFIG.objectives) == KNOWN | {"test_error": UNTESTED.test_error}


def test_the_summary_has_the_front_also_where_it_could_not_be_tested():
    summary = json.loads(json.dumps(SweepResult(CONFIG, "t", [ROW, UNTESTED], [ROW, UNTESTED], failed=1).to_json()))
    assert (summary["trials"], summary["failed"], summary["stopped"]) == (2, 1, False)
    tested, untested = summary["front"]
    shown = {"trial": "a", "val_accuracy": 0.5, "num_images": 20, "artifact": ROW.artifact, "config": {"steps": 2}}
    names = ("test_accuracy", "baseline_same_steps", "baseline_best_recipe")
    assert tested == shown | dict(zip(names, (0.75, 0.125, 0.25), strict=True))
    assert untested == shown | dict.fromkeys(names)
