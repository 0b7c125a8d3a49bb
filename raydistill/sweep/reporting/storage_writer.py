"""The thread that writes a driver's files to the storage, and looks there for requests to stop.

The driver waits for neither, however slow the storage is.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa
import pyarrow.fs

from raydistill.system.storage import open_place, replace_file

STOP = "stop-request"  # A file of this name in the sweep's folder asks the driver to stop.
LOOK = 3.0  # Seconds between two looks for that file.
REST = 5.0  # The thread rests so many times as long as its last writing took, to spare a slow store.

logger = logging.getLogger("raydistill")


class StorageWriter:
    """A thread that writes the newest version of files to a sweep's folder, and looks there for a request to stop.

    When the store cannot be reached, one line says so, and what could not be written is tried again. Local files that
    only grow are appended to, so that programs which follow them (TensorBoard, optuna-dashboard) can read on.

    Args:
        place: the sweep's folder or address.
        allowed: whether the sweep is this driver's; while it is not, the folder is not touched.
    """

    def __init__(self, place: str, allowed: Callable[[], bool] = lambda: True) -> None:
        self.place, self.allowed = place, allowed
        self.filesystem, self.folder = open_place(place)
        self.stop_asked = False
        self._whole: dict[str, bytes] = {}  # Files that wait to be written.
        self._growing: dict[str, tuple[bytearray, int]] = {}  # The content of a file, and how much of it is written.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._away = False
        self._taken()  # A request from before this driver does not count.
        self._thread = threading.Thread(target=self._work, name="storage-writer", daemon=True)
        self._thread.start()

    def put(self, name: str, data: bytes) -> None:
        """Let the thread write a file, unless a newer version comes first."""
        with self._lock:
            self._whole[name] = data

    def grow(self, name: str, more: bytes) -> None:
        """Let the thread append bytes to a file; what an earlier process left under the name is replaced."""
        if more:
            with self._lock:
                content, written = self._growing.get(name, (bytearray(), 0))
                content += more
                self._growing[name] = content, written

    def close(self, patience: float = 30.0) -> bool:
        """Write what is left and end the thread; return whether all was written in `patience` seconds."""
        self._closing = True
        self._wake.set()
        self._thread.join(patience)
        return not self._thread.is_alive() and not self._away and not self._whole

    def _work(self) -> None:
        look = 0.0
        while True:
            closing = self._closing
            begin = time.monotonic()
            self._write_all()
            if begin >= look and not closing:
                self.stop_asked |= self._taken()
                look = time.monotonic() + LOOK
            if closing:
                return
            self._wake.wait(max(1.0, REST * (time.monotonic() - begin)))

    def _write_all(self) -> None:
        if not self.allowed():
            return
        with self._lock:
            whole, self._whole = self._whole, {}
            growing = {name: (bytes(content), n) for name, (content, n) in self._growing.items() if n < len(content)}
        try:
            if isinstance(self.filesystem, pa.fs.LocalFileSystem):
                for name in (*growing, *whole):
                    os.makedirs(os.path.dirname(f"{self.folder}/{name}"), exist_ok=True)
            for name, (content, written) in growing.items():
                self._add(name, content, written)
            for name in list(whole):
                replace_file(self.filesystem, f"{self.folder}/{name}", whole[name])
                del whole[name]
            self._away = False
        except OSError as error:
            if not self._away:
                logger.warning("%s: cannot be written to at the moment; the sweep continues: %s", self.place, error)
            self._away = True
            with self._lock:
                self._whole = whole | self._whole  # Newer contents replace older ones.

    def _add(self, name: str, content: bytes, written: int) -> None:
        file = f"{self.folder}/{name}"
        local = isinstance(self.filesystem, pa.fs.LocalFileSystem)
        try:
            if local and written:
                with open(file, "ab") as stream:
                    stream.write(content[written:])
            else:
                replace_file(self.filesystem, file, content)
        except OSError:
            self._set_written(name, 0)  # A part may be written, so the next try writes the whole.
            raise
        self._set_written(name, len(content))

    def _set_written(self, name: str, count: int) -> None:
        with self._lock:
            self._growing[name] = self._growing[name][0], count

    def _taken(self) -> bool:
        """Return whether there was a request to stop, and delete it."""
        file = f"{self.folder}/{STOP}"
        with suppress(OSError):  # The next writing reports that the store cannot be reached.
            if self.allowed() and self.filesystem.get_file_info(file).type == pa.fs.FileType.File:
                self.filesystem.delete_file(file)
                return True
        return False
