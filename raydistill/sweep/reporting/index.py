"""index.parquet: every trial of a sweep, readable by anything while the sweep runs.

The driver writes it (`raydistill.sweep.reporting.index_writer`), `raydistill status` reads it; neither Ray nor torch is
imported here.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.config.distribution import Distribution
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.errors import UserError
from raydistill.system.storage import join, open_place, read_file

INDEX = "index.parquet"
READS, PAUSE = 3, 0.2  # How often a file that makes no sense is read, and the seconds between.
META = b"raydistill"  # The key of the schema's metadata that contains `About` as JSON.

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
State = Literal["running", "stopping", "testing", "done", "stopped", "failed"]
ENDED = ("testing", "done", "stopped", "failed")  # States in which no trial runs any more.


@dataclass(frozen=True)
class About:
    """The state of the sweep as a whole, in the index's metadata. Times are in seconds since 1970."""

    name: str
    state: State
    """`stopping`: somebody asked for it; `testing`: the front's sets; the last three: there is no driver any more."""
    objectives: Mapping[str, str]
    searched: list[str]
    trials: int
    """How many the whole sweep has; a row has only a trial that began or is about to begin."""
    updated: float = field(default_factory=time.time)
    """When the index was written."""


@dataclass(frozen=True)
class Index:
    """An index that was read: the state of the sweep, and a row for each trial."""

    about: About
    rows: list[TrialRow]


def column_type(distribution: Distribution) -> pa.DataType:
    """Return the type of a searched setting's column; choices of different types are written as JSON."""
    if distribution.kind != "choice":
        return pa.int64() if "int" in distribution.kind else pa.float64()
    try:
        return pa.array(list(distribution.ends)).type
    except pa.ArrowException:
        return pa.string()


def index_schema(config: SweepConfig) -> pa.Schema:
    """Return the columns: trial and status, then the searched settings, then what was measured."""
    first = ("trial", "status")
    searched = {name: column_type(distribution) for name, distribution in config.search.items()}
    columns = {name: COLUMNS[name] for name in first} | searched | COLUMNS
    return pa.schema(list(columns.items()))


def to_parquet(rows: Sequence[TrialRow], schema: pa.Schema, about: About) -> bytes:
    """Return the bytes of the file."""
    arrays = [_array(_column(rows, name), schema.field(name).type) for name in schema.names]
    described = schema.with_metadata({META: json.dumps(asdict(about)).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=described), sink)
    return bytes(sink.getvalue())


def _column(rows: Sequence[TrialRow], name: str) -> list[Any]:
    """Return a field of each row, or a searched setting."""
    return [getattr(row, name) if name in COLUMNS else row.config.get(name) for row in rows]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(values, kind)


def read_index(place: str) -> Index:
    """Read the index of the sweep in a folder or at an address.

    Raises:
        UserError: there is none, it is damaged, or the place cannot be reached.
    """
    file = join(place, INDEX)
    table = _table(place, file)
    try:
        described = dict(json.loads(table.schema.metadata[META]))
        about = About(**{name: described[name] for name in described.keys() & About.__annotations__})
        missing = [name for name in (*COLUMNS, *about.searched) if name not in table.column_names]
        if missing:
            raise ValueError(f"has no column {missing[0]}")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: not the index of a sweep: {reason}") from error
    return Index(about, [_row(values, about.searched) for values in table.to_pylist()])


def _table(place: str, file: str) -> pa.Table:
    """Read the table of the index; raises UserError as `read_index` does.

    Where a driver writes the file meanwhile, an object store may give parts of two versions; then it is read again.
    """
    for _ in range(READS - 1):
        with suppress(pa.ArrowException, OSError):
            return _parsed(_bytes(place, file))
        time.sleep(PAUSE)
    try:
        return _parsed(_bytes(place, file))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not the index of a sweep: {str(error).splitlines()[0]}") from error


def _parsed(data: bytes) -> pa.Table:
    """Return the table in the bytes of a file, read by this thread alone.

    A thread of Arrow's may still hold the bytes when a short command ends, which aborts it (apache/arrow issue 34314).
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def _bytes(place: str, file: str) -> bytes:
    """Read the bytes of the index; raises UserError as `read_index` does."""
    filesystem, inside = open_place(file)
    try:
        return read_file(filesystem, inside)
    except FileNotFoundError as error:
        raise UserError(
            f"{place}: holds no sweep (it has no {INDEX}); name the folder of one, as runs/digits"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error}") from error


def _row(values: dict[str, Any], searched: list[str]) -> TrialRow:
    config = {name: values[name] for name in searched}
    return TrialRow(config=config, **{name: values[name] for name in COLUMNS})
