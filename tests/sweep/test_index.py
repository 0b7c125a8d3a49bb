"""index.parquet, and what `raydistill status` and `stop` make of it."""

import io
import json
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.distribution import Distribution
from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.reporting.index import (
    COLUMNS,
    INDEX,
    META,
    About,
    column_type,
    index_schema,
    read_index,
    to_parquet,
)
from raydistill.sweep.reporting.status import Status, age, print_status, read_status, stop
from raydistill.sweep.reporting.storage_writer import STOP
from raydistill.sweep.surviving.holder import LEASE
from raydistill.sweep.surviving.lease import leased
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.errors import UserError
from raydistill.system.shell import typed
from raydistill.system.storage import join, open_place, replace_file

SEARCH = {
    "steps": {"int": [1, 3]},
    "inner_lr": {"loguniform": [0.001, 1.0]},
    "network.init": {"choice": ["xavier", "kaiming"]},
    "images.learned": {"choice": [True, False]},
    "outer.clip": {"choice": [None, 1.0]},
}
CONFIG = validated(SweepConfig, {"name": "t", "search": SEARCH, "budget": {"trials": 8}})
POINT = {"steps": 2, "inner_lr": 0.5, "network.init": "kaiming", "images.learned": True, "outer.clip": None}


def row(trial, status, accuracy=None, images=None):
    measured = (
        {} if accuracy is None else {"iterations": 40, "diverged": False, "time": datetime(2027, 1, 1, tzinfo=UTC)}
    )
    artifact = f"/runs/t/trial-{trial}/checkpoint_000001/best.distilled"
    return TrialRow(trial, status, POINT, val_accuracy=accuracy, num_images=images, artifact=artifact, **measured)


ROWS = [
    row("a", "TERMINATED", 0.5, 10),
    row("b", "STOPPED", 0.4, 20),
    row("c", "RUNNING", 0.9, 20),
    row("d", "RUNNING"),
    row("e", "ERROR", 0.1, 10),
    row("f", "PENDING"),
]


def about(state="running", **update):
    values = {"name": "t", "state": state, "objectives": CONFIG.objectives, "searched": list(SEARCH), "trials": 8}
    return About(**values | update)


def write(place, rows=ROWS, **update):
    filesystem, inside = open_place(join(str(place), INDEX))
    filesystem.create_dir(inside.rpartition("/")[0], recursive=True)
    replace_file(filesystem, inside, to_parquet(rows, index_schema(CONFIG), about(**update)))


def test_columns_are_no_settings():
    assert not set(COLUMNS) & (set(DistillConfig.model_fields) - {"iterations"})  # which cannot be searched


def test_other_readers_open_it_and_every_value_comes_back(tmp_path):
    write(tmp_path)
    frame = pd.read_parquet(tmp_path / INDEX)
    assert list(frame.columns) == ["trial", "status", *SEARCH, *list(COLUMNS)[2:]]
    assert frame.set_index("trial").loc["c", "val_accuracy"] == 0.9
    schema = pq.read_schema(tmp_path / INDEX)
    types = {name: str(schema.field(name).type) for name in schema.names}
    assert {types[name] for name in ("steps", "num_images")} == {"int64"}
    assert [types[name] for name in ("inner_lr", "network.init", "images.learned", "outer.clip")] == [
        "double",
        "string",
        "bool",
        "double",
    ]
    found = read_index(str(tmp_path))
    assert found.about == about(updated=found.about.updated)
    assert found.rows == ROWS


def test_choices_of_different_types_are_written_as_json():
    kind = column_type(Distribution.model_validate({"choice": [1, "all", None]}))
    assert kind == pa.string()
    schema = pa.schema([("trial", pa.string()), ("steps", kind)])
    rows = [TrialRow("a", "PENDING", {"steps": steps}) for steps in (1, "all", None)]
    table = pq.read_table(pa.BufferReader(to_parquet(rows, schema, about())))
    assert table["steps"].to_pylist() == ["1", "all", None]


def test_an_empty_sweep_has_an_index(tmp_path):
    write(tmp_path, rows=[])
    assert read_status(str(tmp_path)).to_json()["pending"] == 8


@pytest.mark.slow
def test_damage_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no sweep"):
        read_index(str(tmp_path))
    write(tmp_path)
    good = (tmp_path / INDEX).read_bytes()
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other")
    for data in (b"", good[:200], good[:-5], b"PAR1" * 9, (tmp_path / "other").read_bytes()):
        (tmp_path / INDEX).write_bytes(data)
        with pytest.raises(UserError, match=r"index\.parquet: not the index of a sweep") as error:
            read_index(str(tmp_path))
        assert "\n" not in str(error.value)
    (tmp_path / INDEX).unlink()
    (tmp_path / INDEX).mkdir()
    with pytest.raises(UserError, match=r"index\.parquet: cannot be read"):
        read_index(str(tmp_path))


def test_an_index_that_is_written_while_it_is_read_is_read_again(tmp_path):
    """As in an object store, where the first bytes may be of one version and the last of another."""
    write(tmp_path)
    whole = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(whole[:100] + bytes(len(whole) - 100))
    late = threading.Timer(0.1, (tmp_path / INDEX).write_bytes, [whole])
    late.start()
    assert len(read_index(str(tmp_path)).rows) == len(ROWS)
    late.join()


def test_no_other_thread_reads_an_index(tmp_path):
    """A thread of Arrow's that still held the bytes aborted one in 25 processes that ended right after the read."""
    write(tmp_path)
    script = (
        "import os, sys; from raydistill.sweep.reporting.index import read_index\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "before = threads(); assert read_index(sys.argv[1]).rows; print(threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_status_counts_ranks_and_dates(tmp_path):
    write(tmp_path)
    found = read_status(str(tmp_path))
    assert found.counts == {"done": 2, "stopped_early": 1, "failed": 1, "running": 2, "pending": 3}
    assert [r.trial for r in found.front] == ["a", "c"]  # b is beaten by c, e by a
    assert found.best.trial == "c"
    assert found.state == "running"
    shown = json.loads(json.dumps(found.to_json(), allow_nan=False))["running_trials"][0]
    assert set(shown) == {*COLUMNS, "config"}
    assert shown["config"] == POINT
    assert shown["time"] == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_each_setting_whole(tmp_path, width):
    write(tmp_path)
    console = Console(width=width, record=True, file=io.StringIO())
    print_status(read_status(str(tmp_path)), console)
    text = console.export_text()
    names = ("steps=2", "inner_lr=0.5", "network.init=kaiming", "images.learned=True", "outer.clip=null")
    assert all(text.count(name) == 4 for name in names)  # of two trials in the front, and of two that run
    assert ("inner_lr=0.5 network.init=kaiming" in text) == (width == 200)
    assert "…" not in text


@pytest.mark.parametrize(
    ("state", "silence", "said"),
    [
        ("running", 25, "running"),
        ("running", 40, "gone"),
        ("testing", 40, "gone"),
        ("done", 10**6, "done"),
        ("stopped", 10**6, "stopped"),
    ],
)
def test_a_silent_driver_is_gone(tmp_path, state, silence, said):
    write(tmp_path, state=state, updated=time.time() - silence)
    found = read_status(str(tmp_path))
    assert found.state == said
    console = Console(width=200, record=True, file=io.StringIO())
    print_status(found, console)
    assert ("raydistill sweep --resume" in console.export_text()) == (said in ("gone", "stopped"))


def test_a_driver_that_renews_its_lease_is_not_gone_though_it_has_no_news(tmp_path):
    with leased(str(tmp_path)):
        write(tmp_path, updated=time.time() - 10_000)
        found = read_status(str(tmp_path))
    assert (found.state, found.silent < 30) == ("running", True)


def test_the_index_of_an_older_driver_is_read(tmp_path):
    write(tmp_path, state="done")
    table = pq.read_table(tmp_path / INDEX)
    described = json.loads(table.schema.metadata[META]) | {"heartbeat": 20.0}
    pq.write_table(table.replace_schema_metadata({META: json.dumps(described)}), tmp_path / INDEX)
    assert read_status(str(tmp_path)).state == "done"


def test_addresses_are_quoted_for_the_shell(tmp_path):
    status = Status("s3://b/exp/t?region=x&scheme=http", None, 0.0)
    assert status.resume == "raydistill sweep --resume 's3://b/exp/t?region=x&scheme=http'"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")]
)
def test_ages(seconds, words):
    assert age(seconds) == words


@pytest.mark.slow
def test_stop_waits_for_the_end(s3, tmp_path):
    """A driver that obeys is played by a thread."""
    for place in (join(s3, "t"), str(tmp_path)):
        write(place)

        def obey(place=place):
            filesystem, inside = open_place(join(place, STOP))
            while filesystem.get_file_info(inside).type.name != "File":
                time.sleep(0.05)
            write(place, state="stopping")
            time.sleep(1.5)
            write(place, state="stopped")

        driver = threading.Thread(target=obey)
        driver.start()
        told = []
        assert stop(place, 20, told.append).state == "stopped"
        driver.join()
        assert told[-1] == "stopped"


def test_stop_of_a_sweep_that_does_not_run(tmp_path):
    write(tmp_path, state="done")
    with pytest.raises(UserError, match=r"does not run \(done, last sign of life 0 s ago\)"):
        stop(str(tmp_path), 5)
    assert not (tmp_path / STOP).exists()


@pytest.mark.slow
def test_stop_says_when_the_driver_dies_or_time_is_up(tmp_path):
    write(tmp_path, updated=time.time() - LEASE + 2)
    goes_on = typed(f"raydistill sweep --resume {tmp_path}")
    with pytest.raises(
        UserError, match=re.escape(f"the driver was lost before it stopped; resume it with `{goes_on}`")
    ):
        stop(str(tmp_path), 20)
    write(tmp_path)
    begin = time.monotonic()
    assert stop(str(tmp_path), 1.5).state == "running"
    assert time.monotonic() - begin < 20


def test_the_commands(tmp_path):
    run = CliRunner().invoke
    write(tmp_path, state="stopped")
    done = run(app, ["status", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert "2 of 8 trials done (1 stopped early), 2 paused, 1 failed, 3 pending" in " ".join(done.output.split())
    assert json.loads(done.output.splitlines()[-1])["state"] == "stopped"
    for command in (["stop", str(tmp_path)], ["status", str(tmp_path / "none")], ["sweep", str(tmp_path), "--resume"]):
        failed = run(app, command)
        assert failed.exit_code == 2, command
        assert failed.output.startswith("error:")
        assert len(failed.output.splitlines()) == 1
