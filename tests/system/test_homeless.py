"""A user id without a name or a home folder, as `docker run --user` gives it."""

import os
import shutil
import subprocess

import pytest
from running import COMMAND, QUICK, last_json, run

from raydistill.system.storage import at_home, home

NOBODY = 54321
RIGHTS = "+dac_read_search"  # to read the files of this test's Python, wherever they are


@pytest.fixture
def as_nobody(tmp_path):
    """What begins a command as a user of whom the system knows the number only."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv")
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    begin = ["setpriv", *ids, f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"]
    if subprocess.run([*begin, *COMMAND, "--help"], capture_output=True).returncode:
        pytest.skip("this Python cannot be run by another user")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    os.chown(tmp_path, NOBODY, NOBODY)
    return begin


WHO = dict.fromkeys(("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "RAYDISTILL_DATA"))


@pytest.mark.slow
def test_a_run_and_what_comes_after(tmp_path, as_nobody):
    out, _ = run("distill", *QUICK, "--out", "r", "--json", cwd=tmp_path, before=as_nobody, **WHO)
    assert last_json(out)["num_images"] == 10
    out, err = run("distill", *QUICK, cwd=tmp_path, before=as_nobody, **WHO)
    assert "compiled" not in err  # the kernels serve, though there is no place to keep them
    run("show", "r/best.distilled", cwd=tmp_path, before=as_nobody, **WHO)
    assert (tmp_path / "grid.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distill", "--set", "dataset=mnist"], "--data-dir: this user has no home folder for data sets"),
        (["distill", "--out", "~/x"], "~/x: this user has no home folder; set HOME"),
        (["status", "~"], "~: this user has no home folder; set HOME"),
    ],
)
def test_what_needs_a_home_says_so(tmp_path, as_nobody, arguments, words):
    _, err = run(*arguments, cwd=tmp_path, code=2, before=as_nobody, **WHO)
    assert err.startswith(f"error: {words}")
    assert len(err.splitlines()) == 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_of_a_user_without_a_home(tmp_path, as_nobody):
    (tmp_path / "s.yaml").write_text(
        "name: t\nbase: {eval_every: 2, batch_size: 32}\nsearch: {steps: {int: [1, 2]}}\n"
        "budget: {trials: 1, iterations: 4, concurrent: 1}\n"
    )
    out, _ = run("sweep", "s.yaml", "--json", cwd=tmp_path, before=as_nobody, RAY_ADDRESS=None, **WHO)
    assert last_json(out)["trials"] == 1
    assert not os.path.exists("/nonexistent")


def test_nowhere_is_no_home(monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")  # of Debian's users for services
    assert home() is None
    with pytest.raises(Exception, match="no home folder"):
        at_home("~/x")
    assert at_home("x") == "x"
