"""Printing: text without markup, in any encoding, until nobody reads it."""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console
from rich.text import Text

logger = logging.getLogger("raydistill")


def plain_console(stderr: bool = False) -> Console:
    """Return a console without markup: names of files and classes may contain [brackets] and :colons:."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print a line of texts, or (text, style), as they are: unbroken, and without markup on any console."""
    console.print(Text.assemble(*parts), soft_wrap=True)


@contextmanager
def aside(what: str) -> Iterator[None]:
    """Log an error in one line and continue: for a picture, log or table that nothing depends on."""
    try:
        yield
    except Exception as error:  # No error may stop the work, as nothing depends on this part.
        logger.warning("%s left out: %s", what, in_a_line(error))


def in_a_line(error: BaseException) -> str:
    """Return an error's message in one line, with the file first. Spaces are kept, as names may contain them."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str | bytes)
        text = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error.strerror
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def utf8_names() -> None:
    """Restart this process in Python's UTF-8 mode where the locale has another encoding for files' names.

    Otherwise Python and Arrow would not mean the same file by a name. The encoding of the output does not change.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.name != "posix":
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.environ["PYTHONUTF8"] = "1"  # Processes that Ray starts read it.
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


class _Lasting(io.FileIO):
    """A standard stream that drops what is written after its reader went away or its disk was full.

    An error here would end the work, which is worth more than its output.
    """

    lost: OSError | None = None

    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        """Write as much as possible; once nobody reads, pretend that all was written."""
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return len(data)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let standard output and errors take any text, and raise no error when writing fails.

    Letters that the encoding lacks are written as \\N escapes. Where a file could not take the output, a line at the
    end says so, and the exit code is 1. A reader that stops early is no error.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        lost = lost_output()
        if lost is not None and lost.errno != errno.EPIPE:
            print(f"error: standard output: cannot be written: {lost.strerror}", file=sys.stderr)
            ended = sys.exc_info()[1]
            if isinstance(ended, SystemExit):
                ended.code = ended.code or 1
        sys.stdout, sys.stderr = before


def lost_output() -> OSError | None:
    """Return why standard output was not written to its end; None where it was."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lasting) else None


def _lasting(stream: Any, number: int) -> TextIO:
    """Return the stream as a `_Lasting` one; where it was closed before we began, one that keeps nothing."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    raw = _Lasting(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(cast(io.RawIOBase, raw)),
        stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
