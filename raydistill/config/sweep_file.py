"""Where a sweep's settings are read from: its YAML file, or the folder of one that was begun."""

from pathlib import Path
from typing import Any

from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home, exists, is_local, join, read_json, split

SWEEP_FILE = "sweep.json"  # The file of a sweep's settings, in its folder.


def sweep_values(source: str) -> dict[str, Any]:
    """Return the settings in a sweep's YAML file, or those that the sweep in a folder or at an address was begun with.

    Raises:
        UserError: there is no such file, or no sweep there.
    """
    source = at_home(source)
    if is_local(source) and not Path(source).is_dir():
        return read_yaml(source)
    if not exists(join(source, SWEEP_FILE)):
        raise UserError(f"{source}: holds no sweep (it has no {SWEEP_FILE})")
    storage, name = split(source)
    values: dict[str, Any] = read_json(join(source, SWEEP_FILE))
    return values | {"storage": storage, "name": name}


def run_settings(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the settings of one run in a YAML file's values; for a sweep's file those of its first known good point.

    Raises:
        UserError: the sweep's settings do not go together.
    """
    if "search" not in values:
        return values
    return validated(SweepConfig, values, f"{file}: ").first_point()
