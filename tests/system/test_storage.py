"""Places by name, and what is said of those that cannot be used."""

import os
import resource
import signal
import socket
import threading
import time
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest
import torch

import raydistill.system.storage
import raydistill.system.write_probe
from raydistill.config.distill_config import DistillConfig
from raydistill.method import DistilledSet
from raydistill.store.artifact import Artifact, save
from raydistill.store.bank import bank_table, write_bank_file
from raydistill.store.checkpoint import save_checkpoint
from raydistill.system.errors import UserError
from raydistill.system.storage import (
    PARTIAL,
    exists,
    has_password,
    join,
    open_place,
    read_file,
    read_json,
    remove_partial,
    replace_file,
    split,
    whole_folder,
    write_json,
)
from raydistill.system.write_probe import check_writable

HERE = "endpoint_override=http://127.0.0.1:{}&region=us-east-1"


@pytest.mark.parametrize(
    ("place", "above", "name"),
    [
        ("runs/digits", "runs", "digits"),
        ("digits/", ".", "digits"),
        ("/digits", "/", "digits"),
        ("s3://bucket/exp/digits?region=x&scheme=http", "s3://bucket/exp?region=x&scheme=http", "digits"),
    ],
)
def test_split_undoes_join(place, above, name):
    assert split(place) == (above, name)
    assert os.path.normpath(join(above, name).replace("//", "")) == os.path.normpath(place.replace("//", ""))


def test_an_object_store_is_used_like_a_folder(s3, tmp_path):
    for place in (s3, str(tmp_path)):
        file = join(place, "a", "b.json")
        assert not exists(file)
        write_json(file, {"x": [1]})
        filesystem, inside = open_place(file)
        replace_file(filesystem, inside, b'{"y": 2}')
        assert read_json(file) == {"y": 2}
        assert read_file(filesystem, inside) == b'{"y": 2}'
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]  # nothing half-written is left


def test_a_failed_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "x"
    file.write_bytes(b"old")
    filesystem, inside = open_place(file)
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        replace_file(filesystem, inside, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert file.read_bytes() == b"old"


WRITERS = {  # of a file that is the larger, the larger a number is
    "json": lambda folder, n: partial(write_json, f"{folder}/x.json", [n] * n),
    "bytes": lambda folder, n: partial(replace_file, *open_place(folder / "x"), b"x" * n),
    "checkpoint": lambda folder, n: partial(save_checkpoint, {"x": torch.zeros(n)}, folder),
    "bank": lambda folder, n: partial(write_bank_file, folder / "x", table_of(n)),
    "artifact": lambda folder, n: partial(save, artifact_of(n), folder / "x.distilled"),
}


def table_of(count):
    return bank_table(torch.zeros(1, count), torch.ones(1), torch.ones(1))


def artifact_of(count):
    distilled = DistilledSet(torch.zeros(1, count, 1, 8, 8), torch.full((1, count, 2), 0.5), torch.zeros(1, 1))
    return Artifact(distilled, DistillConfig(), ("a", "b"), torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path, writer):
    """By the signal that the system sends where a file grows beyond a limit."""
    writer(tmp_path, 2)()
    old = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write = writer(tmp_path, 100_000)  # before the fork, after which torch's threads are not there
    child = os.fork()
    if not child:
        with suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
            write()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGXFSZ
    assert {path: path.read_bytes() for path in old} == old
    assert list(tmp_path.glob(f"*{PARTIAL}{child}"))  # it was in the middle
    remove_partial(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(old)


def test_readers_find_an_artifact_at_any_moment(tmp_path):
    """While it is replaced again and again."""
    folder, missing, done = tmp_path / "x.distilled", [], threading.Event()
    save(artifact_of(1), folder)

    def read():
        while not done.is_set():
            if not (folder / "manifest.json").exists():
                missing.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        save(artifact_of(1), folder)
    done.set()
    reader.join()
    assert not missing
    assert [path.name for path in tmp_path.iterdir()] == ["x.distilled"]


def test_folders_are_replaced_where_the_system_cannot_exchange_them(tmp_path, monkeypatch):
    monkeypatch.setattr(raydistill.system.storage, "_exchanged", lambda one, other: False)
    for text in ("old", "new"):
        with whole_folder(f"{tmp_path}/x") as folder:
            Path(folder, "file").write_text(text)
    assert (tmp_path / "x" / "file").read_text() == "new"
    with pytest.raises(ZeroDivisionError), whole_folder(f"{tmp_path}/x"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("text", ["", "[1", "\xff"])
def test_a_damaged_json_file_is_named(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"x\.json: cannot be read as JSON"):
        read_json(str(tmp_path / "x.json"))


def test_passwords_in_addresses_are_refused_and_not_repeated():
    address = "s3://key:verysecret@bucket/exp"
    assert has_password(address)
    assert not any(has_password(p) for p in ("s3://bucket/a:b@c", "s3://b?x=a:b@c", "gs://anonymous@b/x", "runs:a@b"))
    for use in (open_place, check_writable):
        with pytest.raises(UserError, match="environment") as error:
            use(address)
        assert "verysecret" not in str(error.value)


def test_a_good_place_is_left_as_it_was(s3, tmp_path):
    for place in (s3, str(tmp_path / "new")):
        check_writable(place)
        filesystem, inside = open_place(place)
        assert filesystem.get_file_info(pa.fs.FileSelector(inside, allow_not_found=True)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("{}/file/runs", "cannot be written to"),
        ("/proc/runs", "cannot be written to"),
        ("nowhere://x/y", "not a place that can be opened"),
        ("s3://bucket/x?" + HERE.format(9), "the host cannot be reached"),
        ("s3://bucket/x?colour=red", "not a place that can be opened"),
    ],
)
def test_a_bad_place_is_one_line_that_names_the_setting(tmp_path, storage, words):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=rf"^storage=.*{words}") as error:
        check_writable(storage.format(tmp_path))
    assert "\n" not in str(error.value)


def test_a_missing_bucket_and_wrong_keys_are_said(s3, s3_server, monkeypatch):
    with pytest.raises(UserError, match="there is no such bucket"):
        check_writable(f"s3://none-of-this-name/x?endpoint_override={s3_server}&region=us-east-1")

    def refuse_after(actions: bytes) -> None:
        address = f"{s3_server}/moto-api/reset-auth"
        request = urllib.request.Request(address, actions, {"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request).close()

    refuse_after(b"0")
    try:
        with pytest.raises(UserError, match="the credentials in the environment do not allow it"):
            check_writable(s3)
    finally:
        refuse_after(b"1000000000")


@pytest.mark.slow
def test_a_silent_host_is_given_up(monkeypatch):
    monkeypatch.setattr(raydistill.system.write_probe, "PATIENCE", 3.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        begin = time.monotonic()
        with pytest.raises(UserError, match="no answer in 3 s"):
            check_writable("s3://bucket/x?" + HERE.format(deaf.getsockname()[1]))
    assert time.monotonic() - begin < 8
