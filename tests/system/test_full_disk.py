"""Where a disk is full, or a file may not grow, one line says so, and what was whole before stays whole."""

import os
import resource
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from running import QUICK, run

from raydistill.store.artifact import load
from raydistill.store.checkpoint import load_checkpoint
from raydistill.system.tensor_file import save_tensors

LARGE = ["--set", "steps=10", "--set", "images_per_class=10", "--set", "eval_every=5"]  # a checkpoint of a MiB


def is_own_mount_possible():
    if os.geteuid() or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.fixture
def in_small_disk(tmp_path):
    """What begins a command whose folder `small` is a disk of so many KiB, which ends with it; what is there is kept
    in `after`."""
    if not is_own_mount_possible():
        pytest.skip("needs to mount a file system")
    (tmp_path / "small").mkdir()

    def beginning(kib):
        script = f'mount -t tmpfs -o size={kib}k tmpfs small && "$@"; code=$?; cp -r small after; exit $code'
        return ["unshare", "-m", "bash", "-c", script, "bash"]

    return beginning


def lines(text):
    return text.strip().splitlines()


def nothing_half_written(folder):
    return not [path for path in folder.rglob("*") if "partial" in path.name or path.name == "raydistill.lock"]


def distilling(folder, before, script, *settings):
    """Runs `raydistill distill` after a script's lines in its process; returns its exit code and lines of errors."""
    (folder / "script.py").write_text(textwrap.dedent(script) + "from raydistill.cli import main\nmain()\n")
    done = subprocess.run(
        [*before, sys.executable, "script.py", "distill", *QUICK, *settings, "--out", "small/r"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, lines(done.stderr)


@pytest.mark.slow
def test_a_run_that_fills_the_disk(tmp_path, in_small_disk):
    """The log in TensorBoard is the first that finds no room, the checkpoint at the end the second."""
    late = "import raydistill.runs.distillation\nraydistill.runs.distillation.SAVE_SECONDS = 1e9\n"  # however slow
    settings = ["--set", "eval_every=1", "--set", "iterations=60", "--set", "steps=5"]
    code, errors = distilling(tmp_path, in_small_disk(200), late, *settings)
    assert errors == [
        "small/r: TensorBoard's log ends: No space left on device",
        "error: small/r/checkpoint.pt: No space left on device",
    ]
    assert code == 2
    assert nothing_half_written(tmp_path / "after")


@pytest.mark.slow
def test_the_last_checkpoint_and_artifact_stay(tmp_path, in_small_disk):
    """A disk that something else fills while a run keeps a checkpoint every second."""
    script = """
        import contextlib, os, threading, time
        import raydistill.runs.distillation
        raydistill.runs.distillation.SAVE_SECONDS = 1.0

        def fill():
            while not os.path.exists("small/r/best.distilled/manifest.json"):
                time.sleep(0.05)
            with contextlib.suppress(OSError), open("small/other", "wb", 0) as stream:
                while True:
                    stream.write(b"x" * 512)

        threading.Thread(target=fill, daemon=True).start()
    """
    code, [*before, last] = distilling(tmp_path, in_small_disk(8000), script, *LARGE, "--set", "iterations=100000")
    assert code == 2
    assert last.startswith("error: small/r/")
    assert "No space left on device" in last
    assert all("TensorBoard's log ends" in line for line in before)
    assert nothing_half_written(tmp_path / "after")
    assert load(tmp_path / "after" / "r" / "best.distilled").metrics["iterations"] > 0
    assert load_checkpoint(tmp_path / "after" / "r")["distiller"]


@pytest.mark.slow
def test_commands_on_a_disk_that_is_full(tmp_path, in_small_disk):
    run("distill", *QUICK, "--out", "r", cwd=tmp_path)
    full = in_small_disk(8)
    full[4] = full[4].replace('&& "$@"', '&& dd if=/dev/zero of=small/z bs=1k count=8 2> small.log; "$@"')
    for command, words in (
        (["distill", *QUICK, "--out", "small/x"], "small/x: is no folder to work in: No space left on device"),
        (
            ["pretrain", "--set", "nets=2", "--out", "small/b"],
            "small/b: is no folder to work in: No space left on device",
        ),
        (["show", "r/best.distilled", "-o", "small/x.png"], "small/x.png: the picture cannot be written: "),
        (["sweep", "s.yaml", "--set", "storage=small"], "storage=small: cannot be written to: "),
    ):
        shutil.rmtree(tmp_path / "after", ignore_errors=True)
        (tmp_path / "s.yaml").write_text("name: t\nsearch: {steps: {int: [1, 2]}}\n")
        _, err = run(*command, cwd=tmp_path, code=2, before=full)
        [line] = lines(err)
        assert line.startswith(f"error: {words}")
        assert "No space left on device" in line
        assert os.listdir(tmp_path / "after") == ["z"]


@pytest.fixture
def files_end_at():
    """Sets how large a file may grow, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_tensors_are_written_whole_or_not_at_all(tmp_path, files_end_at):
    file = tmp_path / "t [x].pt"
    save_tensors({"a": torch.ones(3)}, file)
    files_end_at(100_000)
    with pytest.raises(OSError, match=r"File too large: .*t \[x\]\.pt") as error:
        save_tensors({"a": torch.zeros(100_000)}, file)
    assert error.value.filename == str(file)
    assert os.listdir(tmp_path) == [file.name]
    assert torch.load(file)["a"].tolist() == [1, 1, 1]


def test_a_bank_is_written_whole_or_not_at_all(tmp_path, files_end_at):
    from raydistill.store.bank import bank_table, write_bank_file

    files_end_at(10_000)
    with pytest.raises(OSError, match="File too large"):
        write_bank_file(
            tmp_path / "networks-00000.arrow", bank_table(torch.zeros(2, 9000), torch.ones(2), torch.ones(2))
        )
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_log_that_may_not_grow_ends_no_run(tmp_path):
    """A quota that the pictures in TensorBoard's log are beyond, and nothing else is."""
    limited = ["bash", "-c", 'ulimit -f 90; "$@"', "bash"]  # KiB
    settings = ["--set", "eval_every=1", "--set", "iterations=30"]
    _, err = run("distill", *QUICK, *settings, "--out", "r", "--json", cwd=tmp_path, before=limited)
    assert lines(err) == ["r: TensorBoard's log ends: File too large"]
    assert load(tmp_path / "r" / "best.distilled").metrics["iterations"] == 30
