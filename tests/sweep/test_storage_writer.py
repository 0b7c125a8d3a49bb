"""Files on their way to a folder or an object store, also one that is away for a while."""

import logging
import os
import threading
import time

import pytest
from small_sweep import wait_for

from raydistill.sweep.reporting.storage_writer import STOP, StorageWriter
from raydistill.system.storage import exists, join, open_place, read_file, replace_file


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "t") if request.param == "folder" else join(request.getfixturevalue("s3"), "t")


def content(place, name):
    return read_file(*open_place(join(place, name)))


def test_the_newest_versions_arrive(place):
    mail = StorageWriter(place)
    for number in range(50):
        mail.put("a", b"%d" % number)
        mail.put("b/c", b"x" * number)
        mail.grow("log", b"%d\n" % number)
        time.sleep(0.01)
    assert mail.close()
    assert content(place, "a") == b"49"
    assert content(place, "b/c") == b"x" * 49
    assert content(place, "log").split() == [b"%d" % number for number in range(50)]


def test_a_growing_file_is_begun_anew_and_then_only_added_to(tmp_path):
    (tmp_path / "log").write_bytes(b"of an earlier driver\n")
    mail = StorageWriter(str(tmp_path))
    mail.grow("log", b"1\n")
    wait_for(lambda: (tmp_path / "log").read_bytes() == b"1\n")
    with open(tmp_path / "log", "rb") as reader:  # who reads along sees what is added to the very file
        mail.grow("log", b"2\n")
        assert mail.close()
        assert reader.read() == b"1\n2\n"


@pytest.mark.slow
def test_requests_are_heard_once_and_old_ones_not_at_all(place):
    filesystem, inside = open_place(join(place, STOP))
    filesystem.create_dir(inside.rpartition("/")[0], recursive=True)
    replace_file(filesystem, inside, b"")
    mail = StorageWriter(place)
    assert not exists(join(place, STOP))
    time.sleep(0.5)
    assert not mail.stop_asked
    replace_file(filesystem, inside, b"")
    wait_for(lambda: mail.stop_asked)
    assert not exists(join(place, STOP))
    assert mail.close()


@pytest.mark.slow
def test_a_store_that_is_away_is_said_once_and_gets_everything_later(tmp_path, caplog):
    mail = StorageWriter(str(tmp_path / "t"))
    mail.put("a", b"1")
    mail.grow("log", b"1\n")
    wait_for(lambda: (tmp_path / "t" / "log").exists() and (tmp_path / "t" / "a").exists())
    os.rename(tmp_path / "t", tmp_path / "elsewhere")
    (tmp_path / "t").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        for number in b"2", b"3", b"4":
            mail.put("a", number)
            mail.grow("log", number + b"\n")
            time.sleep(1.1)
        assert len(caplog.records) == 1
        assert "cannot be written to at the moment; the sweep continues" in caplog.text
    os.remove(tmp_path / "t")
    os.rename(tmp_path / "elsewhere", tmp_path / "t")
    wait_for(lambda: (tmp_path / "t" / "a").read_bytes() == b"4")
    assert mail.close()
    assert (tmp_path / "t" / "log").read_bytes() == b"1\n2\n3\n4\n"


@pytest.mark.slow
def test_readers_never_see_a_part(tmp_path):
    mail = StorageWriter(str(tmp_path))
    sizes, ended = set(), threading.Event()

    def read():
        while not ended.is_set():
            if (tmp_path / "a").exists():
                data = (tmp_path / "a").read_bytes()
                sizes.add((len(data), len(set(data))))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        mail.put("a", bytes([number]) * 1_000_000)
        mail._wake.set()
        time.sleep(0.02)
    assert mail.close()
    ended.set()
    reader.join()
    assert sizes == {(1_000_000, 1)}
