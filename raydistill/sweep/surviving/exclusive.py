"""The creation of a file that must not be there yet, such that of several processes one alone succeeds.

pyarrow's file systems have no such operation; a local folder has one, and so has S3 through boto3.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.fs

from raydistill.system.storage import exists, join, open_place, replace_file

Make = Callable[[str, bytes], bool]  # It takes a name and a content, and returns whether the file is new.
PROBE = "probe"


def exclusive_maker(folder: str) -> tuple[Make, str]:
    """Return what makes files in a folder or at an address, and why two processes may succeed; empty if they cannot.

    Where they may, the file has the content of the later of two that write at the same moment.
    """
    if isinstance(open_place(folder)[0], pa.fs.LocalFileSystem):
        return lambda name, data: _make_local(Path(open_place(folder)[1], name), data), ""
    why = "it is no folder and no s3:// address"
    if folder.startswith("s3://"):
        try:
            client, bucket, key = s3_client(folder)
            if takes_conditions(client, bucket, key):
                return lambda name, data: put_new(client, bucket, f"{key}/{name}", data), ""
            why = "its server takes no conditional writes"
        except ImportError:
            why = "boto3 is missing (uv run --extra aws ..., or pip install 'boto3>=1.36')"
        except Exception as error:  # pyarrow may write where boto3 or its parts cannot.
            why = f"boto3 cannot write there: {' '.join(str(error).split())[:200]}"
    return lambda name, data: _make_perhaps(join(folder, name), data), why


def s3_client(address: str) -> tuple[Any, str, str]:
    """Return boto3's client for an address as pyarrow takes it, its bucket and its key."""
    import boto3
    from botocore.config import Config

    bucket, _, key = open_place(address)[1].partition("/")
    options = {name: values[-1] for name, values in parse_qs(urlsplit(address).query).items()}
    endpoint = options.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    config = Config(
        connect_timeout=10,
        read_timeout=20,
        retries={"total_max_attempts": 2},
        s3={"addressing_style": "path"} if endpoint else {},
    )
    client = boto3.client("s3", region_name=options.get("region"), endpoint_url=endpoint, config=config)
    return client, bucket, key


def takes_conditions(client: Any, bucket: str, key: str) -> bool:
    """Return whether a server obeys the condition on a write: some servers of the S3 protocol ignore it."""
    name = f"{key}/{PROBE}-{secrets.token_hex(8)}"  # The name is this call's own, as several sweeps may begin at once.
    try:
        return put_new(client, bucket, name, b"") and not put_new(client, bucket, name, b"")
    finally:
        client.delete_object(Bucket=bucket, Key=name)


def put_new(client: Any, bucket: str, key: str, data: bytes) -> bool:
    """Write an object; return False where there is one of that name already.

    Raises:
        OSError: it cannot be written.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise OSError(str(error)) from error
    except BotoCoreError as error:
        raise OSError(str(error)) from error
    return True


def _make_local(file: Path, data: bytes) -> bool:
    """Write a new file; return False where there is one already."""
    try:
        with open(file, "xb") as stream:
            try:
                stream.write(data)
            except OSError:  # There is no space.
                file.unlink()
                raise
    except FileExistsError:
        return False
    return True


def _make_perhaps(file: str, data: bytes) -> bool:
    """Write a new file as `_make_local` does, except that two processes may succeed at the same moment."""
    if exists(file):
        return False
    filesystem, inside = open_place(file)
    replace_file(filesystem, inside, data)
    return True
