"""What a sweep's driver writes to the storage beside Tune, and what it is told from there; it waits for neither."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa
import pyarrow.fs

from raydistill.system.storage import open_place, replace_file

STOP = "stop-request"  # a file of this name in its folder asks the driver to end the sweep
LOOK = 3.0  # seconds between two looks for it
REST = 5.0  # times as long as the last writing took: a slow store is not kept busy

logger = logging.getLogger("raydistill")


class Mailbox:
    """A thread that writes the newest version of files to a sweep's folder, and looks there for a request to stop.

    A store that is away for a while is said once, and what could not be written is tried again. Local files that only
    grow are appended to, so that those who read along (TensorBoard, optuna-dashboard) find them as they left them.

    Args:
        place: the sweep's folder or address.
        allowed: whether the sweep is this driver's; nothing is touched while it is not.
    """

    def __init__(self, place: str, allowed: Callable[[], bool] = lambda: True) -> None:
        self.place, self.allowed = place, allowed
        self.filesystem, self.folder = open_place(place)
        self.stop_asked = False
        self._whole: dict[str, bytes] = {}  # waiting to be written
        self._growing: dict[str, tuple[bytearray, int]] = {}  # content, and how much of it lies there
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._away = False
        self._taken()  # one that nobody was there to hear
        self._thread = threading.Thread(target=self._work, name="mailbox", daemon=True)
        self._thread.start()

    def put(self, name: str, data: bytes) -> None:
        """Has a file written as soon as the thread comes to it, unless a newer version comes first."""
        with self._lock:
            self._whole[name] = data

    def grow(self, name: str, more: bytes) -> None:
        """Has bytes added to a file; what an earlier process left under the name is replaced."""
        if more:
            with self._lock:
                content, written = self._growing.get(name, (bytearray(), 0))
                content += more
                self._growing[name] = content, written

    def close(self, patience: float = 30.0) -> bool:
        """Writes what is left and ends the thread; returns whether all was written in `patience` seconds."""
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
                logger.warning("%s: cannot be written to at the moment; the sweep goes on: %s", self.place, error)
            self._away = True
            with self._lock:
                self._whole = whole | self._whole  # newer ones win

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
            self._set_written(name, 0)  # perhaps a part of it was: next time as a whole
            raise
        self._set_written(name, len(content))

    def _set_written(self, name: str, count: int) -> None:
        with self._lock:
            self._growing[name] = self._growing[name][0], count

    def _taken(self) -> bool:
        """Whether there was a request to stop; there is none after it."""
        file = f"{self.folder}/{STOP}"
        with suppress(OSError):  # away: said by the next writing
            if self.allowed() and self.filesystem.get_file_info(file).type == pa.fs.FileType.File:
                self.filesystem.delete_file(file)
                return True
        return False
