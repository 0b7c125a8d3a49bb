"""index.parquet: every trial of a sweep, readable by anything while the sweep runs.

The driver writes it (`raydistill.sweep.reporting.watch`), `raydistill status` reads it; neither Ray nor torch is
imported here.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.config.distribution import Distribution
from raydistill.config.sweep_config import SweepConfig
from raydistill.system.errors import UserError
from raydistill.system.storage import join, open_place, read_file

INDEX = "index.parquet"
META = b"raydistill"  # key of the schema's metadata that holds `About` as JSON

# The columns beside the searched settings.
COLUMNS = {
    "trial": pa.string(),
    "status": pa.string(),
    "val_accuracy": pa.float64(),
    "val_loss": pa.float64(),
    "num_images": pa.int64(),
    "grad_steps": pa.int64(),
    "iterations": pa.int64(),
    "seconds": pa.float64(),
    "diverged": pa.bool_(),
    "node": pa.string(),
    "artifact": pa.string(),
    "time": pa.timestamp("ms", tz="UTC"),
}
METRICS = ("val_accuracy", "val_loss", "num_images", "grad_steps", "iterations", "seconds")

# PENDING; RUNNING; PAUSED: interrupted, goes on with --resume; TERMINATED: did all its iterations, or diverged;
# STOPPED: by the scheduler or the end of the budget's hours; ERROR
FINISHED = ("TERMINATED", "STOPPED")

State = Literal["running", "stopping", "testing", "done", "stopped", "failed"]
ENDED = ("testing", "done", "stopped", "failed")  # no trial runs any more


@dataclass(frozen=True)
class About:
    """What the index says of the sweep as a whole. Times are seconds since 1970."""

    name: str
    state: State
    """`stopping`: somebody asked it to; `testing`: the front's sets; the last three: there is no driver any more."""
    objectives: Mapping[str, str]
    searched: list[str]
    trials: int
    """Of the whole sweep; the rows are those that were begun or are about to."""
    updated: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Index:
    """An index that was read: a dict for each trial, and the sweep's own values."""

    about: About
    rows: list[dict[str, Any]]


def column_type(distribution: Distribution) -> pa.DataType:
    """Of a searched setting; choices of different types are written as JSON."""
    if distribution.kind != "choice":
        return pa.int64() if "int" in distribution.kind else pa.float64()
    try:
        return pa.array(list(distribution.ends)).type
    except pa.ArrowException:
        return pa.string()


def index_schema(config: SweepConfig) -> pa.Schema:
    """Trial and status first, then the searched settings, then what was measured."""
    first = ("trial", "status")
    searched = {name: column_type(distribution) for name, distribution in config.search.items()}
    columns = {name: COLUMNS[name] for name in first} | searched | COLUMNS
    return pa.schema(list(columns.items()))


def to_parquet(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, about: About) -> bytes:
    """The file's bytes."""
    rows = list(rows)
    arrays = [_array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names]
    described = schema.with_metadata({META: json.dumps(asdict(about)).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=described), sink)
    return bytes(sink.getvalue())


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(values, kind)


def read_index(place: str) -> Index:
    """The index of the sweep in a folder or at an address.

    Raises:
        UserError: there is none, it is damaged, or the place cannot be reached.
    """
    file = join(place, INDEX)
    filesystem, inside = open_place(file)
    try:
        data = read_file(filesystem, inside)
    except FileNotFoundError as error:
        raise UserError(
            f"{place}: holds no sweep (it has no {INDEX}); name the folder of one, as runs/digits"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    try:
        table = pq.read_table(pa.BufferReader(data))
        described = dict(json.loads(table.schema.metadata[META]))
        about = About(**{name: described[name] for name in described.keys() & About.__annotations__})
        missing = [name for name in (*COLUMNS, *about.searched) if name not in table.column_names]
        if missing:
            raise ValueError(f"has no column {missing[0]}")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: not the index of a sweep: {reason}") from error
    return Index(about, table.to_pylist())
