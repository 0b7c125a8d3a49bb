"""What is printed: text as it is, in whatever encoding, for as long as somebody reads it."""

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
    """A console that takes no text for markup: the names of files and classes may hold [brackets] and :colons:."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Prints a line of texts, or (text, style), as they are: unbroken, and without markup on any console."""
    console.print(Text.assemble(*parts), soft_wrap=True)


@contextmanager
def aside(what: str) -> Iterator[None]:
    """Around a picture, log or table: where it fails, a line says so, and the work goes on without."""
    try:
        yield
    except Exception as error:  # whatever it is: nothing depends on it
        logger.warning("%s left out: %s", what, in_a_line(error))


def in_a_line(error: BaseException) -> str:
    """What an error says; of one of the operating system the file first. Spaces stay, they may be those of a name."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str | bytes)
        text = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error.strerror
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def utf8_names() -> None:
    """Begins this process anew in Python's UTF-8 mode where the locale has files' names in another encoding.

    Python's own ways to open files and Arrow's would not mean the same file. What is printed stays as it was.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.name != "posix":
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.environ["PYTHONUTF8"] = "1"  # for the processes that Ray begins
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


class _Lasting(io.FileIO):
    """A standard stream whose reader may go away, or whose disk be full: what is written after that is dropped.

    The work that would be lost with an error here is worth more than its output.
    """

    lost: OSError | None = None

    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        """Writes as much as it can; says that it wrote it all once nobody reads."""
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return len(data)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within it standard output and errors take any text, and no error comes of writing to them.

    What the encoding lacks is written as \\N escapes. Where a file could not take the output, rather than a reader have
    enough of it, a line says so at the end, and the exit code is 1.
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
    """Why standard output was not written to its end, where it was not."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lasting) else None


def _lasting(stream: Any, number: int) -> TextIO:
    """The stream as one that lasts; where it was closed before we began, one that keeps nothing."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    raw = _Lasting(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(cast(io.RawIOBase, raw)),
        stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
