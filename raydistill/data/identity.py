"""Whether real data are those that something was made from."""

from collections.abc import Mapping
from typing import Any

from raydistill.data.dataset import Dataset
from raydistill.system.errors import UserError


def identity(data: Dataset) -> dict[str, str]:
    """Return what `is_same` compares: checksums over pixels, and over files where there are some."""
    known = {"dataset_fingerprint": data.fingerprint, "dataset_encoded": data.encoded}
    return {name: value for name, value in known.items() if value is not None}


def is_same(data: Dataset, kept: Mapping[str, Any]) -> bool:
    """Return whether an `identity` is that of the data: by pixels or, as other decoders give other pixels, by files.

    An identity without checksums counts as the same.
    """
    mine = identity(data)
    both = [name for name in mine if kept.get(name) is not None]
    return not both or any(mine[name] == kept[name] for name in both)


def check_same(data: Dataset, kept: Mapping[str, Any], whose: str, allow_other_data: bool = False) -> bool:
    """Check that an `identity` is that of the data, unless other data are allowed.

    Raises:
        UserError: the data are others, and those are not allowed.
    """
    same = is_same(data, kept)
    if not same and not allow_other_data:
        raise UserError(
            f"{whose}: was made from other data than dataset={data.name} holds now: files, classes or pixels changed; "
            "restore the old ones, or accept these: --allow-other-data"
        )
    return same
