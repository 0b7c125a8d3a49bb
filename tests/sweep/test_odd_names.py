"""A sweep whose folder, data and classes have odd names, and whose pictures cannot be drawn."""

import os
import shlex

import pytest
from running import images_by_class, last_json, run

from raydistill.store.artifact import load

STORAGE = "st [x] [bold]?k=v&l %20#1 :smile: 'q' \"r\" é日 $HOME"
SWEEP = (
    "name: t\nbase: {eval_every: 2, batch_size: 32, device: cpu}\nsearch: {steps: {int: [1, 2]}}\n"
    "budget: {trials: 2, iterations: 4, concurrent: 1}\n"
)
FILES = {"sweep.json", "tuner.pkl", "state.zip", "index.parquet", "front.json", "front", "best.png"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_with_odd_names(tmp_path):
    """One place holds all of it, what is printed leads there, and it goes on there."""
    home = tmp_path / "h [y]?"
    images_by_class(home / "data #1", ["$x^{$", b"caf\xe9", "[bold]"])
    (home / "s.yaml").write_text(SWEEP)
    (home / "rc").write_text("font.size: 1000000\n")  # which no font has
    (home / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
    where = {"cwd": home, "HOME": str(home), "MATPLOTLIBRC": str(home / "rc"), "RAY_ADDRESS": None}
    settings = ["--set", "base.dataset=folder:~/data #1", "--set", f"storage=~/{STORAGE}"]
    out, err = run("sweep", "s.yaml", *settings, "--json", **where)
    place = f"{home}/{STORAGE}/t"
    result = last_json(out)
    assert (result["storage"], result["trials"]) == (place, 2)
    assert set(os.listdir(place)) >= FILES
    names = {"data #1", "s.yaml", "rc", STORAGE, "ray_bootstrap_config.yaml"}
    assert {name for name in os.listdir(home) if not name.startswith(".")} == names
    printed = next(line for line in out.splitlines() if line.strip().startswith("test the best"))
    artifact = shlex.split(printed.partition("evaluate ")[2])[0]
    assert artifact in [row["artifact"] for row in result["front"]]
    assert load(artifact).class_names == ("$x^{$", "[bold]", "caf\\xe9")

    said = err.splitlines()
    assert any(line.startswith("the front's picture left out: ") for line in said)
    assert any(line.startswith("trial ") and "TensorBoard's log has gaps: " in line for line in said)
    assert len(said) <= 3  # of two trials a line each, if they say another thing

    out, _ = run("status", f"~/{STORAGE}/t", "--json", **where)
    assert last_json(out)["state"] == "done"
    assert f"{place}/front/trial-" in out
    out, _ = run("sweep", "--resume", f"~/{STORAGE}/t", "--json", **where)
    assert (last_json(out)["storage"], last_json(out)["trials"]) == (place, 2)
    assert {name for name in os.listdir(home) if not name.startswith(".")} == names
