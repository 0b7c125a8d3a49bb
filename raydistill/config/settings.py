"""Settings: typed, checked, immutable objects, made of plain values in sections or under dotted names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from raydistill.config.complaints import complaints
from raydistill.config.sections import models_in, short_form
from raydistill.system.errors import UserError
from raydistill.system.plain_yaml import YAMLError, parse_yaml
from raydistill.system.storage import at_home

MOST_SEED = 2**32 - 1  # The largest seed of scikit-learn's and Optuna's generators.


class Settings(BaseModel):
    """Base of all settings: immutable, no unknown names, no silent conversion from another type.

    A setting in a section may be given by its dotted name; it goes together with the section's short form:
    `{"network": "convnet", "network.width": 32}`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _put_dotted_names_into_sections(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        dotted = {name: value for name, value in values.items() if cls._is_dotted(name)}
        result = {name: value for name, value in values.items() if name not in dotted}
        for name, value in dotted.items():
            section, _, rest = name.partition(".")
            result[section] = cls._in_full(section, result.get(section, {})) | {rest: value}
        return result

    @classmethod
    def _is_dotted(cls, name: Any) -> bool:
        """Return whether a name begins with a section and a dot."""
        section, dot, _ = name.partition(".") if isinstance(name, str) else ("", "", "")
        field = cls.model_fields.get(section) if dot else None
        return field is not None and bool(models_in(field))

    @classmethod
    def _in_full(cls, section: str, value: Any) -> dict[str, Any]:
        """Return what is in a section, whose value may be its short form."""
        if isinstance(value, BaseModel):
            return value.model_dump()
        if isinstance(value, Mapping):
            return dict(value)
        short = short_form(cls.model_fields[section])
        return {} if short is None else dict(short.in_full(value))

    def changed(self, values: Mapping[str, Any], where: str = "") -> Self:
        """Return these settings with other values for some, by their dotted names.

        Raises:
            UserError: they do not go together; names each bad setting, prefixed by `where`.
        """
        return validated(type(self), self.model_dump() | dict(values), where)


def checked_seed(seed: int) -> int:
    """Return the seed itself.

    Raises:
        ValueError: it is none that every generator takes.
    """
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"should be a whole number from 0 to {MOST_SEED}")
    return seed


Seed = Annotated[int, AfterValidator(checked_seed)]

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """Return `model(**values)`, with pydantic's report turned into one line.

    Raises:
        UserError: names each bad setting, prefixed by `where`.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(where + "; ".join(complaints(model, error.errors()))) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested plain values under their dotted names.

    >>> flat({"network": {"name": "convnet", "width": 32}, "seed": 0})
    {'network.name': 'convnet', 'network.width': 32, 'seed': 0}
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return result


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: there is no such file, or it is not a YAML mapping from names to values.
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
    for name in _names(content):
        if not isinstance(name, str):
            raise UserError(f"{path}: {name}: a setting's name should be text, which this is not")
    return content


def _names(values: Any) -> Iterator[Any]:
    """Yield the names of all mappings in plain values."""
    if isinstance(values, Mapping):
        yield from values
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _names(value)
