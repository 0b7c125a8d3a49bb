"""Where no cluster is, or no room for Ray's sockets, a line that names it comes in seconds."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import ray
from running import run

from raydistill.cluster.connect import connect
from raydistill.system.errors import UserError

SWEEP = "name: t\nbase: {eval_every: 2, batch_size: 32}\nsearch: {steps: {int: [1, 2]}}\n"


@contextmanager
def listening(answer):
    """An address where somebody listens, and what they say to whoever comes; None for nothing."""
    with socket.socket() as server, ThreadPoolExecutor() as pool:
        server.bind(("127.0.0.2", 0))  # which Ray does not take for this host
        server.listen()
        callers = []

        def serve():
            while True:
                try:
                    callers.append(server.accept()[0])
                    if answer is not None:
                        callers[-1].sendall(answer)
                except OSError:
                    return

        pool.submit(serve)
        try:
            yield f"127.0.0.2:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for caller in callers:
                caller.close()


def refused():
    begin = time.monotonic()
    with pytest.raises(UserError) as error:
        connect()
    assert not ray.is_initialized()
    assert time.monotonic() - begin < 25
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.0.0.2:1",
        "[::1]:1",
        "no-such-host.invalid:6379",
        "nonsense",
        "host:port",
        "auto",
        "http://127.0.0.1:8265",
        "ray://127.0.0.1:1",
    ],
)
def test_an_address_where_nobody_is(monkeypatch, tmp_path, address):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", address)
    said = refused()
    assert said.startswith(f"RAY_ADDRESS={address}: ")
    assert "HOST:6379" in said


@pytest.mark.slow
@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\n\r\nhello", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_an_address_where_somebody_else_is(monkeypatch, answer):
    monkeypatch.setattr("raydistill.cluster.connect.ANSWER_SECONDS", 3.0)
    with listening(answer) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert refused().startswith(f"RAY_ADDRESS={address}: nobody answers (what listens there is no Ray); ")


def test_an_address_where_another_service_speaks_as_ray_does(monkeypatch):
    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.2:0")
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.2:{port}")
    assert "what listens there is no Ray" in refused()
    server.stop(None)


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_cluster_that_ended_without_saying_so(monkeypatch, tmp_path, variable):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.2:1")  # as `ray start` leaves it
    said = refused()
    assert said.startswith("`ray start` on this machine: nobody answers at 127.0.0.2:1, where Ray looks for it (")
    assert "`ray stop` forgets it" in said


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_long_for_sockets(monkeypatch, tmp_path, variable):
    long = tmp_path / ("long" * 20)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(long))
    said = refused()
    assert said.startswith(f"{variable}={long}: is ")
    assert "too long for Ray's sockets" in said
    assert not long.exists()


@pytest.mark.slow
def test_a_sweep_says_so_in_a_line(tmp_path):
    (tmp_path / "s.yaml").write_text(SWEEP)
    begin = time.monotonic()
    _, err = run("sweep", "s.yaml", cwd=tmp_path, code=2, RAY_ADDRESS="127.0.0.2:1")
    assert time.monotonic() - begin < 90  # of which most are imports; without the check Ray would wait for minutes
    [line] = err.splitlines()
    assert line.startswith("error: RAY_ADDRESS=127.0.0.2:1: nobody answers ([Errno 111] Connection refused); ")
    long = tmp_path / ("long" * 30)
    long.mkdir()
    _, err = run("sweep", "s.yaml", cwd=tmp_path, code=2, RAY_ADDRESS=None, RAY_TMPDIR=None, TMPDIR=str(long))
    [line] = err.splitlines()
    assert line.startswith(f"error: TMPDIR={long}: is ")


@pytest.mark.slow
def test_a_cluster_with_a_token_is_one(monkeypatch, tmp_path):
    """It answers, if only that it wants the token."""
    from raydistill.cluster.private_ray import start_private_ray
    from raydistill.private_api.ray import answers_as_ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    start_private_ray(num_cpus=1, log_to_driver=False)
    try:
        address = ray.get_runtime_context().gcs_address
        assert answers_as_ray(address, 15.0)
    finally:
        ray.shutdown()
