"""The published numbers, our aims, and ours: runs rows of sweeps/ and writes docs/reproduction.md from what came out.

    python benchmarks/reproduce.py run cpu/mnist_convnet_100 --seeds 0 1 2 -- --set dataset=mnist
    python benchmarks/reproduce.py table

`run` distils the first known_good point of sweeps/ROW.yaml with each seed, with what stands behind `--` in addition,
and keeps the run's own JSON in benchmarks/results/reproduction/ROW.json. `table` reads nothing else but those and the
sweep files: nobody types a number.
"""

import argparse
import datetime
import hashlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, commit, device_name

from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import run_settings
from raydistill.config.sweep_sections import Published

ROOT = Path(__file__).parents[1]
BASELINES = ("baseline_same_steps", "baseline_best_recipe")
LESS_IS_MORE = ("test_class_accuracy",)
SWEEPS = ROOT / "sweeps"
FOLDERS = {  # Of sweeps/, each with its heading.
    "paper": "The papers' own networks and settings",
    "cpu": "Two CPU cores",
    "gpu": "One GPU",
}
KEPT = RESULTS / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
HEAD = """# The published numbers, reproduced

Written by `python benchmarks/reproduce.py table` from the results of `python benchmarks/reproduce.py run ROW`, which
are in benchmarks/results/reproduction. Test accuracies in %, of the set that was best on the validation split, with the
deviation over networks; where there are several seeds, the median one. Time is that of the whole command, on a machine
that did other work as well: an upper bound. "random real" is as many random real images, trained on for as many steps,
"best recipe" the same with the recipe that is best for them; rows from before there were recipes lack the latter."""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("row")
    run.add_argument("--seeds", type=int, nargs="+", default=[0])
    commands.add_parser("table")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, settings = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    if options.command == "table":
        PAGE.write_text(page())
    else:
        run_row(options.row, options.seeds, settings)


def run_row(row: str, seeds: list[int], settings: list[str]) -> None:
    """Distils with each seed and keeps what came out, after each of them, beside what other seeds gave before."""
    path, file = SWEEPS / f"{row}.yaml", KEPT / f"{row}.json"
    point = json.dumps(run_settings(read_yaml(path), path), sort_keys=True)
    about = {"settings": settings, "sweep": hashlib.sha256(point.encode()).hexdigest()[:16]}
    where = {"date": datetime.date.today().isoformat(), "commit": commit()}
    where |= {"device": device_name(), "torch": torch.__version__}
    file.parent.mkdir(exist_ok=True, parents=True)
    for seed in seeds:
        start = time.perf_counter()
        result = distilled(["distill", str(path), *settings, "--set", f"seed={seed}"])
        run = {"seed": seed, **where, "seconds": time.perf_counter() - start, "result": result}
        runs = [run, *(other for other in earlier(file, about) if other["seed"] != seed)]
        kept = {**about, "runs": sorted(runs, key=lambda run: run["seed"])}
        file.write_text(json.dumps(kept, indent=2) + "\n")


def earlier(file: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that a row's file holds, if they had the same settings."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    runs: list[dict[str, Any]] = kept.pop("runs", [])
    return runs if kept == about else []


def distilled(arguments: list[str]) -> dict[str, Any]:
    """The JSON that a raydistill command prints last; what it prints before goes on to the screen.

    Ends this process where the command failed or was stopped before its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "raydistill.cli", *arguments, "--out", f"{folder}/run", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [print(line, end="", flush=True) or line for line in process.stdout]
    if process.returncode:
        sys.exit(process.returncode)
    result: dict[str, Any] = json.loads(lines[-1])
    if result.get("stopped"):
        sys.exit(f"stopped after {result['iterations']} iterations: nothing is kept")
    del result["artifact"]
    return result


def page() -> str:
    """docs/reproduction.md."""
    tables, notes = zip(*(table(folder) for folder in FOLDERS), strict=True)
    parts = [f"## {title}\n\n{lines}" for title, lines in zip(FOLDERS.values(), tables, strict=True)]
    return "\n\n".join([HEAD, *parts, "## Commands", "\n".join(filter(None, notes))]) + "\n"


def table(folder: str) -> tuple[str, str]:
    """The table of a folder of sweeps/, and the commands of its rows."""
    columns = (
        "row, published, ours, aim, short of it, before, random real, best recipe, images, networks, seeds, device"
    )
    columns += ", time"
    lines = [f"| {columns.replace(',', ' |')} |", "|---" * len(columns.split(",")) + "|"]
    notes = []
    for path in sorted((SWEEPS / folder).glob("*.yaml")):
        sweep = validated(SweepConfig, read_yaml(path), f"{path}: ")
        published = sweep.published
        assert published is not None, path
        row = f"{folder}/{path.stem}"
        kept = KEPT / f"{row}.json"
        cells, note = measured(row, published, json.loads(kept.read_text())) if kept.exists() else ([], None)
        number = "" if published.value is None else f"{percent(published.value, published.std)} "
        before = "" if published.before is None else f"{percent(published.before)} -> "
        aim = "" if published.aim is None else percent(published.aim)
        ours, *rest = cells or ["not run", *[""] * 9]
        lines.append(f"| {path.stem} | {before}{number}({published.source}) | {ours} | {aim} | {' | '.join(rest)} |")
        if note:
            notes.append(f"- {path.stem}: {note}")
    return "\n".join(lines), "\n".join(notes)


def measured(row: str, published: Published, kept: dict[str, Any]) -> tuple[list[str], str]:
    """The cells of a row from its median run, and how to repeat it."""
    metric = published.metric
    runs = sorted(kept["runs"], key=lambda run: run["result"][metric])
    run = runs[(len(runs) - 1) // 2]
    result = run["result"]
    short = 0.0 if published.aim is None else (published.aim - result[metric]) * (-1 if metric in LESS_IS_MORE else 1)
    cells = [
        percent(result[metric], result.get(f"{metric}_std")),
        f"{100 * short:.1f}" if short > 0 else "",
        percent(result[f"{metric}_before"]),
        *(percent(result[name]) if metric == "test_accuracy" and name in result else "" for name in BASELINES),
        str(result["num_images"]),
        str(result["nets"]),
        ", ".join(percent(run["result"][metric]) for run in kept["runs"]),
        f"{run['device']}, torch {run['torch']}",
        f"{statistics.median(run['seconds'] for run in runs):.0f} s",
    ]
    more = [name for name in ("class_accuracy", "attack_success", "other_accuracy") if f"test_{name}" in result]
    also = "; ".join(f"{n} {percent(result[f'test_{n}_before'])} -> {percent(result[f'test_{n}'])}" for n in more)
    settings = shlex.join(kept["settings"])
    repeat = f"`raydistill distill sweeps/{row}.yaml{' ' + settings if settings else ''} --set seed={run['seed']}`"
    done = f"{result['iterations']} iterations, {run['date']}, commit {run['commit']}"
    return cells, f"{repeat}; {done}" + (f"; {also}" if also else "")


def percent(value: float, std: float | None = None) -> str:
    """A fraction in %, with its deviation where there is one."""
    return f"{100 * value:.1f}" + (f" ± {100 * std:.1f}" if std else "")


if __name__ == "__main__":
    main()
