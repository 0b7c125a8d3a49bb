"""Whatever becomes of the output, the results are kept, and the JSON line comes out if it can."""

import os
import subprocess

import pytest
from running import COMMAND, QUICK, images_by_class, last_json, run

from raydistill.store.artifact import load
from raydistill.system.output import in_a_line, plain_console, say

KEPT = ["best.distilled", "checkpoint.pt"]


def kept(folder):
    """Whether a run's folder holds all that a run leaves."""
    load(folder / "best.distilled")
    return sorted(p.name for p in folder.iterdir() if "tfevents" not in p.name) == KEPT


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "é日"
    images_by_class(folder, ["ü", "日本", "[bold]", b"caf\xe9", "$x^{"])
    return folder


LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "LANG": "C"},
    "C, and Python may not mend it": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_output_in_any_encoding(tmp_path, data, locale):
    nets = ["--set", "weights=random", "--set", "val_nets=2", "--set", "test_nets=2"]  # for a ±
    out, err = run(
        *("distill", *QUICK, *nets, "--set", f"dataset=folder:{data}", "--out", "é", "--json"),
        cwd=tmp_path,
        **LOCALES[locale],
    )
    assert kept(tmp_path / "é")
    assert last_json(out)["artifact"] == "é/best.distilled"
    assert err == ""
    assert "over 2 networks" in out
    out, _ = run("show", "é/best.distilled", "-o", "ü.png", cwd=tmp_path, **LOCALES[locale])
    assert (tmp_path / "ü.png").exists()
    _, err = run("show", "日", cwd=tmp_path, code=2, **LOCALES[locale])
    assert len(err.splitlines()) == 1


def piped(tmp_path, command, reader):
    """Runs a command whose output goes to a reader; what both printed, and their errors."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {reader}', "bash", *COMMAND, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["| head -n 1", "2>&1 | head -n 1", ">&- 2>&-"])
def test_a_run_whose_reader_goes_away_is_kept(tmp_path, reader):
    done = piped(tmp_path, ["distill", *QUICK, "--set", "iterations=40", "--out", "r", "--json"], reader)
    assert done.returncode == 0, done.stderr
    assert kept(tmp_path / "r")
    assert load(tmp_path / "r" / "best.distilled").metrics["iterations"] == 40
    if "2>" in reader:
        assert done.stderr == ""
    elif "|" in reader:  # the JSON line comes out where somebody may read it
        assert last_json(done.stderr)["iterations"] == 40
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_results_that_nothing_keeps_come_out_as_errors(tmp_path):
    run("distill", *QUICK, "--out", "r", cwd=tmp_path)
    done = piped(tmp_path, ["evaluate", "r/best.distilled", "--json"], "| head -c 0")
    assert "test_accuracy" in last_json(done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_a_full_disk_does_not_take_is_said(tmp_path):
    done = piped(tmp_path, ["distill", *QUICK, "--out", "r", "--json"], "> /dev/full")
    assert done.returncode == 1
    line, said = done.stderr.splitlines()
    assert last_json(line)["iterations"] == 6
    assert said == "error: standard output: cannot be written: No space left on device"
    assert kept(tmp_path / "r")


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", ":smile:", "a" * 300, "x  y", "http://a.b/[c]", "'[red]'"])
def test_texts_are_printed_as_they_are(capsys, text):
    say(plain_console(), ("styled ", "bold"), text)
    assert capsys.readouterr().out == f"styled {text}\n"


def test_an_error_in_a_line():
    assert in_a_line(OSError(28, "No space left on device", "/a  b/[c]")) == "/a  b/[c]: No space left on device"
    assert in_a_line(ValueError("one\n   two  three\n\nfour")) == "one two  three four"
    assert in_a_line(ValueError()) == "ValueError"


def test_tables_take_no_markup(capsys):
    from raydistill.sweep.reporting.live_table import LiveTable

    class Trial:
        status, trial_id, last_result, config = "RUNNING", "t1", {}, {"a": "[red]b[/red]"}

        def is_finished(self):
            return False

    LiveTable(1, seconds=0).on_trial_result(1, [Trial()], Trial(), {})
    assert "a=[red]b[/red]" in capsys.readouterr().out
