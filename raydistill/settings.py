"""How settings are read: from YAML and overrides into typed, checked, immutable objects."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from raydistill.errors import UserError


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names, no silent conversion from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """`model(**values)`, with pydantic's report turned into one line.

    Raises:
        UserError: names each bad setting, prefixed by `where`.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(where + "; ".join(_complaint(model, e) for e in error.errors())) from error


def _complaint(model: type[BaseModel], error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"] if part not in ("int", "float", "str", "literal"))
    if error["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) if len(error["loc"]) == 1 else ""
        return f"{name}: there is no such setting" + (f" (there are {known})" if known else "")
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message[:6] == "Input " else message
    return f"{name}: {message}, not {error['input']!r}" if name else message


class _Loader(yaml.SafeLoader):
    """YAML as everybody expects it: 1e-3 is a number (YAML 1.1 wants 1.0e-3)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for; only plain values, no objects."""
    return yaml.load(text, _Loader)  # a SafeLoader


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: there is no such file, or it is not a YAML mapping.
    """
    try:
        content = parse_yaml(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold settings, one `name: value` a line")
    return content


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `values` in which each override `a.b=value` (the value in YAML) replaces or adds a setting.

    >>> with_overrides({"budget": {"trials": 64}}, ["budget.trials=8", "name=digits"])
    {'budget': {'trials': 8}, 'name': 'digits'}

    Raises:
        UserError: an override is not of that form.
    """
    result: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UserError(f"--set {override}: should be NAME=VALUE")
        *parents, last = name.split(".")
        place = result
        for parent in parents:
            place[parent] = dict(place.get(parent) or {}) if isinstance(place.get(parent) or {}, Mapping) else {}
            place = place[parent]
        try:
            place[last] = parse_yaml(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {override}: the value is not valid YAML") from error
    return result
