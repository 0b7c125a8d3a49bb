"""Arrow IPC files as bytes, and back again: ours are never compressed, and those of others may not be."""

import struct

import pyarrow as pa

from raydistill.system.errors import UserError

MAGIC = b"ARROW1\0\0"  # between it and the footer lies an IPC stream


def to_ipc(table: pa.Table) -> bytes:
    """A table as the bytes of an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_ipc(data: bytes, name: str) -> pa.Table:
    """The table in the bytes of an Arrow IPC file; it takes no more memory than they do.

    Raises:
        UserError: it is no such file; names it.
    """
    try:
        stream = pa.py_buffer(data).slice(len(MAGIC))
        if not data.startswith(MAGIC) or any(map(_expands, pa.ipc.MessageReader.open_stream(stream))):
            raise pa.ArrowInvalid("it does not begin as one, or holds compressed data or dictionaries")
        table = pa.ipc.open_stream(stream).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as error:  # UnicodeDecodeError: column names
        raise UserError(f"{name}: not an Arrow file: {' '.join(str(error)[:200].split())}") from error
    return table


def _expands(message: pa.ipc.Message) -> bool:
    """Whether a message may become larger in memory than it is; `pa.ipc` tells only when it has been made."""
    if message.type == "schema":
        return False
    data = bytes(message.metadata)  # a flatbuffer: Message.fbs in Arrow's format
    (root,) = struct.unpack_from("<I", data)
    header = _field(data, root, 2)
    if message.type != "record batch" or header is None:
        return True
    (offset,) = struct.unpack_from("<I", data, header)
    return _field(data, header + offset, 3) is not None


def _field(data: bytes, table: int, slot: int) -> int | None:
    """Where a table of a flatbuffer holds a field, if it has it."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * slot) if 4 + 2 * slot < size else (0,)
    return table + offset if offset else None
