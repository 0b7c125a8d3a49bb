"""How settings are read: from YAML and overrides into typed, checked, immutable objects."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from raydistill.system.errors import UserError
from raydistill.system.plain_yaml import YAMLError, parse_yaml
from raydistill.system.storage import at_home

MOST_SEED = 2**32 - 1  # of scikit-learn's and Optuna's generators; the others take any
MOST_SHOWN = 200  # letters of a wrong value

MOST_COMPLAINTS = 5  # in one line


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names, no silent conversion from another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def checked_seed(seed: int) -> int:
    """The seed itself.

    Raises:
        ValueError: it is none that every generator takes.
    """
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"should be a whole number from 0 to {MOST_SEED}")
    return seed


Seed = Annotated[int, AfterValidator(checked_seed)]


@dataclass(frozen=True)
class Of:
    """Beside the type of a field that is a plain mapping: of which settings it holds some."""

    model: type[BaseModel]


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """`model(**values)`, with pydantic's report turned into one line.

    Raises:
        UserError: names each bad setting, prefixed by `where`.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(where + "; ".join(_complaint(model, e) for e in error.errors()[:MOST_COMPLAINTS])) from error


def _complaint(model: type[BaseModel], error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"] if part not in ("int", "float", "str", "literal"))
    if error["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields) if len(error["loc"]) == 1 else ""
        return f"{name}: there is no such setting" + (f" (there are {known})" if known else "")
    message: str = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message[:6] == "Input " else message
    if not name:
        return message
    given = repr(error["input"])
    return f"{name}: {message}, not {given if len(given) <= MOST_SHOWN else given[:MOST_SHOWN] + '...'}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: there is no such file, or it is not a YAML mapping.
    """
    try:
        content = parse_yaml(Path(at_home(path)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: should hold settings, one `name: value` a line")
    return content


def with_overrides(
    values: Mapping[str, Any], overrides: Iterable[str], model: type[BaseModel] | None = None
) -> dict[str, Any]:
    """A copy of `values` in which each override `a.b=value` replaces or adds a setting.

    The value of a setting that is text is the text as it was typed, all others are read as YAML.

    >>> with_overrides({"budget": {"trials": 64}}, ["budget.trials=8", "name=digits"])
    {'budget': {'trials': 8}, 'name': 'digits'}

    Args:
        values: settings.
        overrides: as typed.
        model: whose settings they are, where it is known which of them are text.

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
            place[last] = _value(text, _kinds(model, [*parents, last]))
        except YAMLError as error:
            raise UserError(f"--set {override}: the value is not valid YAML") from error
    return result


def _value(text: str, kinds: set[Any]) -> Any:
    """What was typed for a setting of these kinds, see `_alternatives`."""
    words = {kind for kind in kinds if isinstance(kind, str)}
    if str not in kinds and (not words or kinds - words - {NoneType}):
        return parse_yaml(text)
    if NoneType in kinds and text in ("null", ""):
        return None
    if int in kinds and re.fullmatch(r"-?[1-9]\d{0,17}|0", text):  # 007 is a name
        return int(text)
    return text


def _kinds(model: type[BaseModel] | None, names: list[str]) -> set[Any]:
    """What a setting may be, by its name and those of the settings that it is within; empty where that is not known."""
    kinds: set[Any] = set()
    for name in names:
        field = model.model_fields.get(name) if model is not None else None
        if field is None:
            return set()
        kinds = _alternatives(field.annotation)
        models = [mark.model for mark in field.metadata if isinstance(mark, Of)]
        models += [kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel)]
        model = models[0] if models else None
    return kinds


def _alternatives(annotation: Any) -> set[Any]:
    """The types that an annotation allows, of a Literal its values."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return set(parts)
    if origin in (Union, UnionType):
        return set().union(*map(_alternatives, parts))
    return _alternatives(parts[0]) if origin is Annotated else {annotation}
