"""What is said of versions, driver, threads and compiler, for real causes, and what there is to do."""

import os

import pytest
import torch
from packaging.requirements import Requirement

from raydistill.commands.doctor import machine, versions
from raydistill.commands.doctor.finding import Options

HERE_AND_NOW = Options(None, "runs")


def one(findings):
    [finding] = findings
    return finding


def test_versions_here_are_within_the_bounds():
    finding = one(versions.look_at_versions(HERE_AND_NOW))
    assert finding.state == "ok", finding
    assert f"torch {torch.__version__.partition('+')[0]}" in finding.found


def test_versions_out_of_bounds(monkeypatch):
    wanted = [Requirement("numpy>=99,<100"), Requirement("no-such-package>=1"), Requirement("torch>=2")]
    monkeypatch.setattr(versions, "asked_for", lambda: ("0.1.0", ">=3.99", wanted))
    finding = one(versions.look_at_versions(HERE_AND_NOW))
    assert not finding.ok
    assert "install Python >=3.99" in finding.todo
    assert "install 'numpy<100,>=99'" in finding.todo
    assert "install 'no-such-package>=1'" in finding.todo
    assert "torch" not in finding.todo


def test_a_torchvision_of_another_torch(monkeypatch):
    fakes = {"torch": "2.8.0+cpu", "torchvision": "0.23.0+cu126"}
    real = versions.installed
    monkeypatch.setattr(versions, "installed", lambda name: fakes.get(name) or real(name))
    finding = one(versions.look_at_versions(HERE_AND_NOW))
    assert not finding.ok
    assert "torch is built for cpu, torchvision for cu126" in finding.todo
    assert "torch 2.8.0+cpu is not >=" in finding.todo  # what torchvision's own metadata ask for


@pytest.mark.skipif(torch.cuda.is_available() or not torch.version.cuda, reason="needs torch for CUDA, and no GPU")
def test_a_driver_that_cannot_be_used(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    without = one(machine.look_at_driver(HERE_AND_NOW))
    assert (without.state, "computed on the CPU" in without.todo) == ("note", True)
    loaded = tmp_path / "version"
    loaded.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021\n")
    monkeypatch.setattr(machine, "DRIVER", loaded)  # there is one, which torch cannot use here
    finding = one(machine.look_at_driver(HERE_AND_NOW))
    assert not finding.ok
    assert f"torch with CUDA {torch.version.cuda} cannot use NVIDIA driver 470.82.01: " in finding.found
    assert "install a driver" in finding.todo
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = one(machine.look_at_driver(HERE_AND_NOW))
    assert hidden.state == "note"
    assert "CUDA_VISIBLE_DEVICES" in hidden.found


def test_threads_that_would_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(machine, "core_limit", lambda: 0.5)
    finding = one(machine.look_at_threads(HERE_AND_NOW))
    assert finding.state == "note"
    assert "time of only 0.5" in finding.found
    assert "taskset -c 0-0" in finding.todo


@pytest.mark.slow
def test_threads_that_are_pinned(monkeypatch, found_alone):
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    finding = found_alone("threads", "machine")
    cores = len(os.sched_getaffinity(0))
    assert finding.found.startswith(f"{cores} core")
    assert "OMP_NUM_THREADS=7" in finding.found
    assert finding.todo.startswith("unset OMP_PROC_BIND=true")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "words"), [("CC", "no-such-compiler", "no-such-compiler"), ("RAYDISTILL_NATIVE", "0", "forbids")]
)
def test_kernels_that_cannot_be(monkeypatch, tmp_path, name, value, words, found_alone):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RAYDISTILL_NATIVE", raising=False)
    monkeypatch.setenv(name, value)
    finding = found_alone("compiler", "machine")
    assert finding.state == "note"
    assert words in finding.found
    assert "two to three times as long" in finding.todo
