"""The token of a Ray of our own: for this user alone, however it came to be. Its ports: tests/runs/test_workers.py."""

import os
import stat

import pytest
from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]

from raydistill.cluster.connect import token_remedy
from raydistill.cluster.private_ray import (
    _keep_token_secret,
    readable_by_others,
    token_file,
    use_any_token,
    use_token,
)
from raydistill.private_api.ray import read_environment_again


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_for_this_user_alone_and_kept(home):
    _keep_token_secret()
    file = home / ".ray" / "auth_token"
    assert file == token_file()
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    first = file.read_text()
    assert len(bytes.fromhex(first)) == 32
    _keep_token_secret()
    assert file.read_text() == first
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"]


def test_one_that_ray_wrote_for_all_is_closed(home):
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("old")
    file.chmod(0o644)
    assert readable_by_others(file)
    _keep_token_secret()
    assert (file.read_text(), mode(file)) == ("old", 0o600)


def test_an_empty_one_is_replaced(home):
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.touch()
    _keep_token_secret()
    assert len(file.read_text()) == 64
    assert mode(file) == 0o600


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "told")])
def test_none_is_made_where_the_user_decides(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    _keep_token_secret()
    assert list(home.iterdir()) == []


def test_a_file_of_the_users_choice_is_closed_but_never_made(home, monkeypatch):
    file = home / "mine"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    _keep_token_secret()
    assert not file.exists()
    file.write_text("told")
    file.chmod(0o664)
    _keep_token_secret()
    assert mode(file) == 0o600


def test_a_token_is_used_unless_the_user_decides(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "to be undone")
    try:
        for mode, value in ((None, AuthenticationMode.TOKEN), ("disabled", AuthenticationMode.DISABLED)):
            if mode is None:
                monkeypatch.delenv("RAY_AUTH_MODE")
            else:
                monkeypatch.setenv("RAY_AUTH_MODE", mode)
            use_token()
            assert os.environ["RAY_AUTH_MODE"] == (mode or "token")
            assert get_authentication_mode() == value
            assert ("export RAY_AUTH_MODE=token" in token_remedy()) == (mode == "disabled")
    finally:
        monkeypatch.undo()
        read_environment_again()


@pytest.mark.parametrize(
    ("given", "made_up"),
    [
        ({}, True),
        ({"RAY_AUTH_MODE": "disabled"}, False),
        ({"RAY_AUTH_TOKEN_PATH": "mine"}, False),  # a missing file is an error that Ray names
    ],
)
def test_a_token_is_made_up_for_a_cluster_without_one(home, monkeypatch, given, made_up):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "to be undone")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    use_any_token()
    assert ("RAY_AUTH_TOKEN" in os.environ) == made_up
    assert list(home.iterdir()) == []


def test_none_is_made_up_where_there_is_one(home):
    _keep_token_secret()
    use_any_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
