"""Arrow IPC files as bytes, and back: they are never compressed, and compressed ones are refused."""

import struct

import pyarrow as pa

from raydistill.system.errors import UserError

MAGIC = b"ARROW1\0\0"  # Between these bytes and the footer lies an IPC stream.


def to_ipc(table: pa.Table) -> bytes:
    """Return a table as the bytes of an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_ipc(data: bytes, name: str) -> pa.Table:
    """Read the table in the bytes of an Arrow IPC file; it takes no more memory than they do.

    Raises:
        UserError: it is no such file; the error names it.
    """
    try:
        stream = pa.py_buffer(data).slice(len(MAGIC))
        if not data.startswith(MAGIC) or any(map(_expands, pa.ipc.MessageReader.open_stream(stream))):
            raise pa.ArrowInvalid("it does not begin as one, or holds compressed data or dictionaries")
        table = pa.ipc.open_stream(stream).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as error:  # UnicodeDecodeError is for names.
        raise UserError(f"{name}: not an Arrow file: {' '.join(str(error)[:200].split())}") from error
    return table


def _expands(message: pa.ipc.Message) -> bool:
    """Return whether a message may take more memory than it is long, which `pa.ipc` says only after reading it."""
    if message.type == "schema":
        return False
    data = bytes(message.metadata)  # A flatbuffer, as of Message.fbs in Arrow's format.
    (root,) = struct.unpack_from("<I", data)
    header = _field(data, root, 2)
    if message.type != "record batch" or header is None:
        return True
    (offset,) = struct.unpack_from("<I", data, header)
    return _field(data, header + offset, 3) is not None


def _field(data: bytes, table: int, slot: int) -> int | None:
    """Return the position of a field in a table of a flatbuffer, if the table has it."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * slot) if 4 + 2 * slot < size else (0,)
    return table + offset if offset else None
