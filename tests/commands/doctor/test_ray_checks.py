"""What is said of Ray's token, and of addresses where no Ray is. One that starts: test_doctor.py."""

import socket

import pytest

from raydistill.commands.doctor.finding import Options

HERE_AND_NOW = Options(None, "runs")


def one(findings):
    [finding] = findings
    return finding


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [(None, None, "none yet"), ("x", 0o600, "this user alone"), ("x", 0o644, "chmod 600"), ("", 0o600, "is empty")],
)
def test_the_token(tmp_path, monkeypatch, text, mode, words):
    from raydistill.commands.doctor.ray_cluster import look_at_token

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if text is not None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(text)
        (tmp_path / ".ray" / "auth_token").chmod(mode)
    finding = one(look_at_token(HERE_AND_NOW))
    assert words in finding.found + finding.todo
    assert finding.ok == (words in ("none yet", "this user alone"))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    assert not one(look_at_token(HERE_AND_NOW)).ok
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert one(look_at_token(HERE_AND_NOW)).state == "note"


@pytest.mark.slow
def test_an_address_where_something_else_listens(monkeypatch, found_alone):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.2", 0))  # which Ray does not take for this host
        deaf.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.2:{deaf.getsockname()[1]}")
        finding = found_alone("ray", "ray_cluster", limit=6.0)
    assert finding.found == "no answer in 6 s"


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1", "127.0.0.1:1"])
def test_an_address_where_nobody_is(monkeypatch, address, found_alone):
    monkeypatch.setenv("RAY_ADDRESS", address)
    finding = found_alone("ray", "ray_cluster")
    assert not finding.ok
    assert address in finding.found
    assert "HOST:6379" in finding.todo
