"""Several workers in one run: the same result as one, to rounding; and what happens when one is lost."""

import ipaddress
import math
import os
import signal
import socket
import stat
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import ray
import torch

from raydistill.cluster.connect import ray_running
from raydistill.cluster.private_ray import start_private_ray
from raydistill.config.distill_config import DistillConfig
from raydistill.config.sweep_sections import Resources
from raydistill.runs.distillation import distill
from raydistill.runs.follower import team
from raydistill.runs.run import Run
from raydistill.system.errors import Lost, UserError

UPDATE = {"weights": "random", "train_nets": 4, "iterations": 4, "labels": "softmax", "device": "cpu"}


@pytest.fixture(scope="module")
def places():
    """A Ray with places for three, whatever the machine has."""
    os.environ.pop("RAY_ADDRESS", None)
    start_private_ray(num_cpus=3, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def config(small):
    return small.changed(UPDATE)


RIDGE = {"epochs": 3, "solver": {"name": "ridge", "pool": {"size": 6, "age": 2}}, "choice": {"steps": 5, "nets": 1}}


def learned(run):
    return torch.cat([p.flatten() for p in (run.current.images, run.current.labels, run.current.learning_rates)])


def test_two_workers_learn_what_one_learns(places, config, digits):
    """Adam's steps are as long for a gradient of rounding errors: so the gradients are compared, then the losses."""
    alone = Run(config, digits)
    together = config.model_copy(update={"workers": 2})
    with team(together, digits) as workers:
        run = Run(together, digits, workers=workers)
        images, labels = digits.train.images[:32], digits.train.labels[:32]
        weights, same = (torch.stack([r.problem.initial_weights[0].sample(4, _stream())]) for r in (alone, run))
        expected = alone.distiller._gradient(weights, images, labels, torch.zeros(0))
        mine = [run.distiller._gradient(half, images, labels, torch.zeros(0)) for half in same.chunk(2, 1)]
        assert torch.allclose((mine[0] + mine[1]) / 2, expected, atol=1e-6)
        metrics = run.advance()
        assert metrics["loss"] == pytest.approx(alone.advance()["loss"], rel=1e-4)
        change = (learned(run) - learned(alone)).abs()
        assert (change > 1e-3).float().mean() < 0.01


def _stream():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("solver", [{}, RIDGE], ids=["unroll", "ridge"])
def test_all_of_them_stay_equal_and_resume_bit_identically(places, config, digits, tmp_path, solver):
    """Stopped and resumed: the followers have to get the leader's state, or the ends would differ."""
    config = config.changed(solver | {"workers": 2})

    asked = []  # after each iteration
    whole = distill(config, out=tmp_path / "whole", data=digits)
    halted = distill(config, out=tmp_path / "halves", data=digits, stop=lambda: asked.append(1) or len(asked) > 3)
    assert halted.metrics["iterations"] == 3
    resumed = distill(out=tmp_path / "halves", resume=True, data=digits)
    assert torch.equal(resumed.distilled.images, whole.distilled.images)
    assert torch.equal(resumed.distilled.labels, whole.distilled.labels)
    assert resumed.metrics["test_accuracy"] == whole.metrics["test_accuracy"]


def test_all_of_them_go_back_where_the_run_explodes(places, config, digits):
    together = config.changed({"workers": 2, "iterations": 15, "eval_every": 5, "recipe": "schedule"})
    with team(together, digits) as workers:
        run = Run(together, digits, workers=workers)
        run.advance()
        run.distiller.learned.images.mul_(math.inf)
        workers.order(workers.LOAD, run.distiller.state_dict())
        assert run.advance()["rewinds"] == 1
        assert math.isfinite(run.advance()["loss"])  # It is a mean over both.


def test_all_of_it_listens_on_this_machine_alone_and_keeps_its_token(places, config, digits):
    with team(config.model_copy(update={"workers": 2}), digits) as workers:
        Run(config.model_copy(update={"workers": 2}), digits, workers=workers)
        mine = [pid for pid in processes(b"") if os.getpid() in (pid, *ancestors(pid))]
        with socket.create_server(("0.0.0.0", 0)) as careless:
            wide = {(host, port) for host, port in listening(mine) if not ipaddress.ip_address(host).is_loopback}
            assert wide == {careless.getsockname()}  # so it would be seen
        assert (
            len(listening(mine)) >= 10
        )  # GCS, raylet, object manager, agents, driver, actors; torch's store and pairs
        token = Path.home() / ".ray" / "auth_token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        told = [Path(f"/proc/{pid}/cmdline") for pid in mine]
        session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        logs = [path for path in (session / "logs").rglob("*") if path.is_file()]
        assert len(logs) > 10
        assert not [path for path in [*logs, *told] if token.read_bytes() in path.read_bytes()]


def listening(pids):
    """Address and port of each TCP socket on which these processes wait for calls."""
    sockets = set()
    for link in [link for pid in pids for link in Path(f"/proc/{pid}/fd").glob("*")]:
        with suppress(OSError):  # closed meanwhile
            sockets.add(os.readlink(link))
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path("/proc/net", family).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # 0A: it listens
                host, port = fields[1].split(":")
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]  # little-endian words
                address = ipaddress.ip_address(b"".join(words))
                found.add((str(getattr(address, "ipv4_mapped", None) or address), int(port, 16)))
    return found


def test_a_lost_worker_is_said(places, config, digits):
    config = config.model_copy(update={"workers": 2, "iterations": 50, "eval_every": 50})
    with team(config, digits) as workers:
        run = Run(config, digits, workers=workers)
        killed = []

        def kill(iteration):
            if not killed:
                [follower] = [pid for pid in processes(b"ray::Follower") if os.getpid() in ancestors(pid)]
                os.kill(follower, signal.SIGKILL)
                killed.append(follower)

        with pytest.raises(UserError, match=r"workers=2: one of them was lost .*--resume"):
            run.advance(tick=kill)


def test_a_worker_that_hangs_does_not_hold_the_leader_for_hours(places, config, digits, monkeypatch):
    """The leader waits as long as a step may take, not as long as a follower does for an order."""
    monkeypatch.setattr("raydistill.method.workers.LONGEST_STEP", timedelta(seconds=8))
    config = config.model_copy(update={"workers": 2, "iterations": 50, "eval_every": 50})
    with team(config, digits) as workers:
        run = Run(config, digits, workers=workers)
        [follower] = [pid for pid in processes(b"ray::Follower") if os.getpid() in ancestors(pid)]

        def freeze(iteration):
            if iteration == 2:
                os.kill(follower, signal.SIGSTOP)

        begin = time.monotonic()
        try:
            with pytest.raises(Lost, match=r"workers=2: one of them was lost"):
                run.advance(tick=freeze)
        finally:
            os.kill(follower, signal.SIGCONT)
        assert time.monotonic() - begin < 120


def processes(name):
    """Those whose command begins so; Ray names its processes after what they run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "cmdline").read_bytes().startswith(name):
                found.append(int(path.name))
    return found


def ancestors(pid):
    """The process that began this one, the one that began that, and so on."""
    line = []
    with suppress(OSError):  # it ended meanwhile
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            line.append(pid)
    return line


def test_too_many_for_the_cluster(places, config, digits, monkeypatch):
    monkeypatch.setattr("raydistill.cluster.worker_group.PATIENCE", 0.5)
    config = config.model_copy(update={"workers": 4})
    with pytest.raises(UserError, match="workers=4: the cluster has no free places"), team(config, digits, cpus=2):
        pass


@pytest.mark.parametrize("update", [{"train_nets": 3, "workers": 2}, {"weights": "fixed", "workers": 2}])
def test_networks_must_be_shared_out(update):
    with pytest.raises(ValueError, match="workers=2: train_nets="):
        DistillConfig(**{"weights": "random"} | update)


@pytest.mark.slow
def test_resources_are_those_of_this_machine():
    with pytest.raises(UserError, match=r"resources\.cpu=4000"), ray_running(Resources(cpu=4000)):
        pass
