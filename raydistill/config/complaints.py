"""What is wrong with settings, in words: pydantic's errors by dotted names, and names that may have been meant."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from raydistill.config.sections import NO_CHOICE, choice_in, either, models_in, names_in, names_of, path_of, short_form

MOST_SHOWN = 200  # The most letters of a wrong value that are shown.
MOST_COMPLAINTS = 5  # The most complaints in one line.
MOST_GUESSES = 3  # The most names that may have been meant.
MOST_COMPARED = 60  # The most letters of a wrong name that are compared.
ALIKE = 0.65  # Names with this similarity, from 0 to 1, may have been meant.


def complaints(model: type[BaseModel], errors: Sequence[ErrorDetails]) -> list[str]:
    """Return one sentence for each bad setting, the first few of them.

    Where a setting may be of several kinds, pydantic has an error for each kind; these become one sentence.
    """
    by_name: dict[str, list[ErrorDetails]] = {}
    for error in errors:
        name = setting_name(model, error)
        if name not in by_name and len(by_name) == MOST_COMPLAINTS:
            break
        by_name.setdefault(name, []).append(error)
    return [_complaint(model, name, of_name) for name, of_name in by_name.items()]


def setting_name(model: type[BaseModel], error: ErrorDetails) -> str:
    """Return the dotted name of the setting that an error is about: its place without pydantic's words for kinds."""
    models, free, parts = [model], False, []
    for i, part in enumerate(error["loc"]):
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        last = i == len(error["loc"]) - 1
        if fields or free or (last and error["type"] == "extra_forbidden"):
            parts.append(_cut(str(part)))
            models = [inner for field in fields for inner in models_in(field)]
            free = any(get_origin(field.annotation) in (dict, list, tuple) for field in fields)
    return ".".join(parts)


def _complaint(model: type[BaseModel], name: str, errors: list[ErrorDetails]) -> str:
    error = errors[0]
    chosen = [choice for part in error["loc"] if (choice := choice_in(part)) is not None]
    section = name.rpartition(".")[0]
    if error["type"] == "extra_forbidden":
        return f"{name}: {unknown(model, name, chosen[-1] if chosen else '')}"
    if error["type"] == "missing":
        return f"{name}: is needed with {section}={chosen[-1]}" if chosen else f"{name}: is missing"
    given = error["input"]
    guess = ""
    if error["type"] == NO_CHOICE:
        given = error["ctx"]["given"]
        close = get_close_matches(str(given)[:MOST_COMPARED], error["ctx"]["known"], MOST_GUESSES)
        guess = f"; did you mean {either(close)}?" if close else ""
    message = " or ".join(
        [_message(error), *(_message(other).removeprefix("input should be ") for other in errors[1:])]
    )
    return f"{name}: {message}, not {_shown(given)}{guess}" if name else message


def _message(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "model_type":
        return "should be a section of settings"
    return message[0].lower() + message[1:] if message[:6] == "Input " else message


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def unknown(model: type[BaseModel], name: str, chosen: str = "") -> str:
    """Return why a name is none of a model's settings, and which ones may have been meant.

    Args:
        model: the settings.
        name: the wrong name, dotted.
        chosen: where the section that it stands in is one of several, which one.
    """
    section, _, last = name.rpartition(".")
    if chosen and path_of(model, name):
        others = list(dict.fromkeys(map(str, _choices_with(model, section, last))))
        return f"there is no such setting with {section}={chosen}; it is one of {section}={either(others)}"
    if guesses := meant(model, name):
        return f"there is no such setting; did you mean {either(guesses)}?"
    models = (
        [model] if not section else [m for field in (path_of(model, section) or [[]])[-1] for m in models_in(field)]
    )
    known = dict.fromkeys(field for each in models for field in each.model_fields)
    return "there is no such setting" + (f" (there are {', '.join(known)})" if known else "")


def _choices_with(model: type[BaseModel], section: str, setting: str) -> Iterable[Any]:
    """Yield the names of those sections, of the several that may stand in a place, that have a setting."""
    for field in path_of(model, section)[-1]:
        short = short_form(field)
        if short is not None:
            for member in models_in(field):
                if setting in member.model_fields:
                    yield from names_of(member, short.key)


def meant(model: type[BaseModel], name: str) -> list[str]:
    """Return the settings that a wrong name may have meant: of the same name in a section, or of a similar one.

    >>> from raydistill.config.distill_config import DistillConfig
    >>> meant(DistillConfig, "spread"), meant(DistillConfig, "stesp"), meant(DistillConfig, "label_init")
    (['population.spread'], ['steps'], ['labels.init'])
    """
    wrong = name[:MOST_COMPARED]
    known = dict.fromkeys(names_in(model))
    same = [each for each in known if each.rpartition(".")[2] == wrong.rpartition(".")[2]]
    scores = {each: _likeness(wrong, each) for each in known}
    best = max(scores.values())
    close = [each for each in known if scores[each] >= max(ALIKE, best - 0.05)]
    close.sort(key=lambda each: (-scores[each], each.count(".")))
    # A setting of the same name in a section is rarely meant beside one that stands in no deeper section.
    close = [each for each in close if scores[each] < best or each.count(".") == close[0].count(".")]
    return (same or close)[:MOST_GUESSES]


def _likeness(wrong: str, known: str) -> float:
    """Return how similar two names are, from 0 to 1; the known one may lack sections around it, words change places."""
    parts = known.split(".")
    tails = [".".join(parts[i:]) for i in range(len(parts))]
    return max(
        SequenceMatcher(None, order(wrong), order(tail)).ratio() for tail in tails for order in (_words, _sorted)
    )


def _words(name: str) -> str:
    return name.replace(".", "_")


def _sorted(name: str) -> str:
    return "_".join(sorted(_words(name).split("_")))
