"""Checks of places: the folder of data sets, and the storage of sweeps."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from raydistill.commands.doctor.finding import Finding, Options
from raydistill.system.shell import command
from raydistill.system.storage import at_home, home, is_local
from raydistill.system.write_probe import check_writable

GIB = 2**30
LITTLE = 1.0  # GiB; checkpoints and artifacts of a sweep can take more.


def look_at_data(options: Options) -> Iterator[Finding]:
    """Report the folder of downloaded data sets, and which of them it contains."""
    from raydistill.data.sources import FILES, data_folder, is_there

    named = options.data_dir or os.environ.get("RAYDISTILL_DATA")
    if not named and home() is None:
        todo = "for others than digits name a folder with --data-dir or RAYDISTILL_DATA"
        yield Finding("data", True, "this user has no home folder to keep data sets in", todo)
        return
    folder = data_folder(options.data_dir)
    later = "digits is always there; the others are downloaded when first used"
    if not folder.exists():
        todo = "make it, or name another with --data-dir or RAYDISTILL_DATA" if named else later
        yield Finding("data", not named, f"{folder}: no such folder", todo)
    elif not folder.is_dir():
        yield Finding("data", False, f"{folder}: is not a folder", "name one with --data-dir or RAYDISTILL_DATA")
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield Finding(
            "data", False, f"{folder}: may not be read", f"{command('chmod', 'u+rx', folder)}, or name another folder"
        )
    else:
        found = [name for name in FILES if is_there(name, folder)]
        yield Finding("data", True, f"{folder}: {', '.join(found) or 'no data sets'}", "" if found else later)


def look_at_storage(options: Options) -> Iterator[Finding]:
    """Check that a sweep's storage can be written and read, and report its free space."""
    check_writable(options.storage)
    if not is_local(options.storage):
        yield Finding("storage", True, f"{options.storage}: write, read, delete")
        return
    folder = Path(at_home(options.storage)).absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free / GIB
    todo = f"under {LITTLE:g} GiB is soon full: free some, or name another --storage" if free < LITTLE else ""
    yield Finding("storage", True, f"{folder}: write, rename, read, delete; {free:.1f} GiB free", todo)
