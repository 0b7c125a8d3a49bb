"""Sections of settings: how one is written short, which of several it is, and where a dotted name leads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import isclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NO_CHOICE = "no_choice"  # The type of the error for a section that its field does not allow.


@dataclass(frozen=True)
class Of:
    """Beside the type of a field that is a plain mapping: the model of the settings that it holds."""

    model: type[BaseModel]


@dataclass(frozen=True)
class StartsWith:
    """Beside the type of a text: what it begins with; a name follows."""

    prefix: str

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) and value.startswith(self.prefix)

    def __str__(self) -> str:
        return f"{self.prefix}NAME"


@dataclass(frozen=True)
class ShortForm:
    """Beside the type of a section: the setting whose value alone may stand for the section.

    Where the field allows several sections, that setting chooses one; without it the first one is meant.
    `network: convnet` is short for `network: {name: convnet}`.
    """

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = [member for member in alternatives(source) if issubclass(member, BaseModel)]
        choices: dict[Any, CoreSchema] = {
            tag_of(member, self.key): handler.generate_schema(member) for member in members
        }
        if len(members) == 1:
            return core_schema.no_info_before_validator_function(self.in_full, next(iter(choices.values())))

        def tag(value: Any) -> str | None:
            if isinstance(value, BaseModel):
                return tag_of(type(value), self.key)
            return next((tag_of(m, self.key) for m in members if _takes(m, self.key, value[self.key])), None)

        def checked(value: Any) -> Any:
            value = self.in_full(value)
            if isinstance(value, dict):
                value = {self.key: members[0].model_fields[self.key].default} | value
                if tag(value) is None:
                    words = [str(word) for member in members for word in names_of(member, self.key)]
                    context = {"known": words, "given": value[self.key]}
                    raise PydanticCustomError(NO_CHOICE, "should be {words}", {"words": either(words), **context})
            elif not isinstance(value, tuple(members)):
                raise PydanticCustomError(NO_CHOICE, "should be a section", {"known": [], "given": value})
            return value

        union = core_schema.tagged_union_schema(choices, tag)
        return core_schema.no_info_before_validator_function(checked, union)

    def in_full(self, value: Any) -> Any:
        """Return a section that may be written short as it is written in full."""
        if isinstance(value, BaseModel):
            return value
        return dict(value) if isinstance(value, Mapping) else {self.key: value}


def names_of(member: type[BaseModel], key: str) -> list[Any]:
    """Return the values of its key that mean this section, one of several."""
    field = member.model_fields[key]
    prefixes = [mark for mark in field.metadata if isinstance(mark, StartsWith)]
    return prefixes or [word for word in alternatives(field.annotation) if isinstance(word, str)]


def _takes(member: type[BaseModel], key: str, value: Any) -> bool:
    return any(value in name if isinstance(name, StartsWith) else value == name for name in names_of(member, key))


def tag_of(member: type[BaseModel], key: str) -> str:
    """Return what stands in the place of an error for one of several sections, see `choice_in`."""
    return f"<{either([str(name) for name in names_of(member, key)])}>"


def choice_in(part: Any) -> str | None:
    """Return which of several sections this part of an error's place stands for, None for another part."""
    return part[1:-1] if isinstance(part, str) and part[:1] == "<" and part[-1:] == ">" else None


def either(words: Sequence[str]) -> str:
    """Return a list of words as English writes it.

    >>> either(["lenet", "alexcifarnet", "convnet"])
    'lenet, alexcifarnet or convnet'
    """
    return " or ".join([", ".join(words[:-1])] * (len(words) > 1) + list(words[-1:]))


def alternatives(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, of a Literal its values."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return list(parts)
    if origin in (Union, UnionType):
        return [kind for part in parts for kind in alternatives(part)]
    return alternatives(parts[0]) if origin is Annotated else [annotation]


def models_in(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the sections that a field may hold."""
    marked = [mark.model for mark in field.metadata if isinstance(mark, Of)]
    kinds = alternatives(field.annotation)
    return marked + [kind for kind in kinds if isclass(kind) and issubclass(kind, BaseModel)]


def short_form(field: FieldInfo) -> ShortForm | None:
    """Return how the section of a field is written short, if it may be; the field may also allow null."""
    inner = [mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ())]
    return next((mark for mark in [*field.metadata, *inner] if isinstance(mark, ShortForm)), None)


def path_of(model: type[BaseModel], name: str) -> list[list[FieldInfo]]:
    """Return the fields along a dotted name, for each part those of all sections that may be there.

    The list is empty where there is no such setting.
    """
    models, path = [model], []
    for part in name.split("."):
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if not fields:
            return []
        path.append(fields)
        models = [inner for field in fields for inner in models_in(field)]
    return path


def full_name(model: type[BaseModel], name: str) -> str:
    """Return the dotted name of what a name sets: of a section with a short form the setting that this stands for.

    >>> from raydistill.config.distill_config import DistillConfig
    >>> full_name(DistillConfig, "network"), full_name(DistillConfig, "steps")
    ('network.name', 'steps')
    """
    path = path_of(model, name)
    short = short_form(path[-1][0]) if path else None
    return name if short is None else f"{name}.{short.key}"


def is_marked(model: type[BaseModel], name: str, mark: type) -> bool:
    """Return whether a setting, or a section that it is in, bears a mark beside its type."""
    fields = [field for fields in path_of(model, name) for field in fields]
    return any(isinstance(each, mark) for field in fields for each in field.metadata)


def names_in(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted names of all settings of a model, sections before what is in them; some come twice."""
    for name, field in model.model_fields.items():
        yield name
        for inner in models_in(field):
            yield from (f"{name}.{rest}" for rest in names_in(inner))
