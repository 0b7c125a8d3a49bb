"""A quick check that a sweep's storage can be written to, before anything is computed."""

import os
import re
import secrets
import subprocess
import sys

from raydistill.system.errors import UserError
from raydistill.system.storage import has_password, is_local, open_place, read_file, replace_file

PATIENCE = 30.0  # Seconds; Arrow itself retries for minutes before it gives up a silent host.
NAME = ".raydistill-probe"
HINTS = {  # Words of AWS's errors, and what to do.
    r"NO_SUCH_BUCKET|RESOURCE_NOT_FOUND|ucket does not exist|ucket not found": "there is no such bucket; make it first",
    r"INVALID_ACCESS_KEY|SIGNATURE|ACCESS_DENIED|CREDENTIAL|TOKEN|UNAUTHENTICATED|Forbidden|HTTP status 403": (
        "the credentials in the environment do not allow it (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...)"
    ),
    r"NETWORK_CONNECTION|resolve host": "the host cannot be reached",
}


def check_writable(storage: str) -> None:
    """Write a small file to a sweep's storage, read it and delete it again.

    Object stores are tried in a process of their own: a call that waits for a silent host cannot be ended otherwise.

    Raises:
        UserError: it cannot be done, or takes longer than `PATIENCE`; names the setting.
    """
    if has_password(storage):
        raise UserError(
            "storage: leave keys out of the address, which is stored and shown; set them in the environment"
        )
    try:
        if is_local(storage):
            probe(storage)
            return
        command = [sys.executable, "-m", "raydistill.system.write_probe", storage]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"storage={storage}: no answer in {PATIENCE:.0f} s; is the address right, the host up?"
        ) from None
    except OSError as error:
        raise UserError(f"storage={storage}: cannot be written to: {error.strerror or error}") from error
    if done.returncode:
        reason = " ".join(done.stderr.split())[-400:] or f"the probe ended with {done.returncode}"
        hint = next((hint for words, hint in HINTS.items() if re.search(words, reason)), "cannot be written to")
        raise UserError(f"storage={storage}: {hint}: {reason}")


def probe(storage: str) -> None:
    """Write a file, read it and delete it; where there is no folder yet, in the one above.

    An OSError says why it cannot. The file's name is this call's own: several sweeps may begin at once.
    """
    filesystem, folder = open_place(storage)
    while is_local(storage) and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    words = secrets.token_hex(8)
    inside = f"{folder}/{NAME}-{words}"
    replace_file(filesystem, inside, words.encode())
    try:
        if read_file(filesystem, inside) != words.encode():
            raise OSError("what was written reads back as something else")
    finally:
        filesystem.delete_file(inside)


if __name__ == "__main__":
    try:
        probe(sys.argv[1])
    except (OSError, UserError) as failure:
        sys.exit(str(failure))
