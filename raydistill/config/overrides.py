"""What was typed behind --set: dotted names and values, read as the settings that they are for."""

import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

from pydantic import BaseModel

from raydistill.config.sections import alternatives, models_in, path_of, short_form
from raydistill.system.errors import UserError
from raydistill.system.plain_yaml import YAMLError, parse_yaml


def with_overrides(
    values: Mapping[str, Any], overrides: Iterable[str], model: type[BaseModel] | None = None
) -> dict[str, Any]:
    """Return a copy of `values` in which each override `a.b=value` replaces or adds a setting.

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
    typed: list[tuple[str, Any]] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UserError(f"--set {override}: should be NAME=VALUE")
        try:
            typed.append((name, _value(text, *_kinds(model, name))))
        except YAMLError as error:
            raise UserError(f"--set {override}: the value is not valid YAML") from error
    return _merged(model, values, typed)


def merged(model: type[BaseModel], values: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the settings `values` of a model in which settings have other values, by their dotted names.

    >>> from raydistill.config.distill_config import DistillConfig
    >>> merged(DistillConfig, {"network": "convnet"}, {"network.width": 32, "steps": 2})
    {'network': {'name': 'convnet', 'width': 32}, 'steps': 2}
    """
    return _merged(model, values, named.items())


def _merged(
    model: type[BaseModel] | None, values: Mapping[str, Any], named: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    result = dict(values)
    for name, value in named:
        _put(result, name, value, [] if model is None else [model])
    return result


def _put(place: dict[str, Any], name: str, value: Any, models: list[type[BaseModel]]) -> None:
    """Set a value in a mapping of settings by its dotted name.

    A section's short form sets the setting that it stands for, and leaves the others; a mapping replaces them all.
    """
    section, _, rest = name.partition(".")
    fields = [model.model_fields[section] for model in models if section in model.model_fields]
    short = next((found for field in fields if (found := short_form(field)) is not None), None)
    here = [key for key in place if isinstance(key, str) and key.startswith(f"{section}.")]
    if not rest and short is not None and not isinstance(value, Mapping) and section in place:
        rest = short.key
    if not rest:
        if isinstance(value, Mapping):
            for key in here:
                del place[key]
        place[section] = value
        return
    inner = place.get(section)
    if inner is not None and not isinstance(inner, Mapping) and short is None:
        place[name] = value  # A name beside a value that is no section is left for `Settings` to judge.
        return
    if not isinstance(inner, Mapping):
        inner = {} if short is None or section not in place else short.in_full(inner)
    place[section] = inner = dict(inner)
    within = [model for field in fields for model in models_in(field)]
    for key in here:
        _put(inner, key.removeprefix(f"{section}."), place.pop(key), within)
    _put(inner, rest, value, within)


def _value(text: str, kinds: set[Any], section: bool) -> Any:
    """Return what was typed for a setting of these kinds, or for a section with a short form of these kinds."""
    words = {kind for kind in kinds if isinstance(kind, str)}
    if str not in kinds and (not words or kinds - words - {NoneType}):
        return parse_yaml(text)
    if section and text.lstrip().startswith("{"):
        return parse_yaml(text)
    if NoneType in kinds and text in ("null", ""):
        return None
    if int in kinds and re.fullmatch(r"-?[1-9]\d{0,17}|0", text):  # 007 is a name
        return int(text)
    return text


def _kinds(model: type[BaseModel] | None, name: str) -> tuple[set[Any], bool]:
    """Return what a setting may be, empty where that is not known, and whether it is a section."""
    path = path_of(model, name) if model is not None else []
    kinds: set[Any] = set()
    models: list[type[BaseModel]] = []
    for field in path[-1] if path else []:
        inner, short = models_in(field), short_form(field)
        models += inner
        keys = [each.model_fields[short.key] for each in inner] if short is not None else [field]
        kinds |= {kind for key in keys for kind in alternatives(key.annotation)}
    return kinds, bool(models)
