"""manifest.json: the content of a folder of Arrow files, and the sha256 of each; nothing in it is trusted."""

import json
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST = "manifest.json"
DEPTH = 8  # How deep settings may be nested.


class Manifest(BaseModel):
    """What the manifests of artifacts and banks have in common."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    formats: ClassVar[tuple[int, ...]]
    """The formats that can be read; the last one is written."""

    format_version: int
    config: dict[str, Any]
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    provenance: dict[str, Any]
    sha256: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the manifest in the bytes of a file.

        Raises:
            ValueError: it is no manifest, or one of another format; the error says what is wrong.
        """
        try:
            values = json.loads(raw.decode(), object_pairs_hook=_mapping, parse_constant=_no_number)
            found = values.get("format_version") if isinstance(values, dict) else None
            if isinstance(found, int) and found not in cls.formats:
                known = " and ".join(map(str, cls.formats))
                raise ValueError(f"is in format {found}; this raydistill reads {known}, upgrade it")
            settings = values.get("config") if isinstance(values, dict) else None
            if not isinstance(settings, dict):
                return cls.model_validate_json(raw, strict=True)
            _check_settings(settings)
            rest = cls.model_validate_json(json.dumps({**values, "config": {}}), strict=True)
            return rest.model_copy(update={"config": settings})
        except RecursionError:
            raise ValueError("is nested too deep") from None
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")) from error


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of pairs; one that has a name twice is refused, as readers do not agree on it."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("has a name twice")
    return values


def _check_settings(settings: dict[str, Any]) -> None:
    """Raise ValueError where settings are nested too deep, or hold text that is neither Unicode nor a file's name."""
    if _depth(settings) > DEPTH:
        raise ValueError("config: is nested too deep")
    try:
        json.dumps(settings, ensure_ascii=False).encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("config: has letters that are none") from None


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


def _no_number(text: str) -> float:
    raise ValueError(f"has {text} for a number")
