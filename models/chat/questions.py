"""What has to be asked to learn an answer's fields in probabilities, and what the probabilities say of a field.

    bool                              predicate: true from a probability of 0.5 on
    a number from 0 to 1              predicate: the probability is the value
    Literal, Enum                     choice; None among the values is the option "null"
    a list of these                   a predicate for each option: those from 0.5 on, the most probable first; no more than fit,
                                      and no fewer than have to be, however improbable
    any other number with bounds      score over at most 11 levels: the mean of the levels

Pure. A number is rounded to what its field allows (models/chat/numeric.py). A field of another kind, one that no value fits,
or a whole number that may have more than 64 bits, is left to its default, or is a ConfigError where it has none. What can not be
a probability is never believed: one outside 0 to 1 or that is no number, several that do not add up to 1, options that are not
all there, a choice that is none of ours, or clearly not the most probable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel

from models.chat.numeric import ExactSchema, numbers_of, writable
from models.chat.strict_schema import strict_schema
from schemas.errors import ConfigError

Kind = Literal["predicate", "choice", "score"]
MOST_LEVELS: Final = 11
_MOST_OPTIONS: Final = 255
_HALF: Final = 0.5
_SLACK: Final = 0.02
"""By how much probabilities may miss 1: they are rounded on their way."""
_NUMBERS = ("integer", "number")


class Unbelievable(ValueError):
    """An answer that can not be; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: `text` goes behind the name of the record, `options` are the choices or the levels, in their order."""

    kind: Kind
    text: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an answer: its questions, and its value by the answers to these, in order (`value` raises Unbelievable)."""

    name: str
    questions: tuple[Asked, ...]
    value: Callable[[Sequence[Mapping[str, Any]]], Any]


def fields_of(answer: type[BaseModel]) -> tuple[Field, ...]:
    """The fields that are asked about. Raises ConfigError for an answer type that can not be asked in probabilities."""
    item = strict_schema(answer, ExactSchema)["properties"]["answers"]["items"]["properties"]
    required = answer.model_json_schema(mode="validation", by_alias=True).get("required", ())
    found: list[Field] = []
    for name, schema in item.items():
        if name == "id":
            continue
        made = _field(name, schema)
        if made is not None:
            found.append(made)
        elif name in required:
            raise ConfigError(
                f"building the questions for {answer.__name__}: its field {name} can not be asked in probabilities; make it a "
                "Literal, a bool, a list of Literals or a number with both bounds (a whole one of 64 bits), and see that some "
                "value keeps all its limits; or give it a default, or set HEADRACE_MODEL_API to chat"
            )
    if not any(field.questions for field in found):
        raise ConfigError(f"building the questions for {answer.__name__}: none of its fields can be asked in probabilities; "
                          "set HEADRACE_MODEL_API to chat")  # fmt: skip
    return tuple(found)


def _field(name: str, schema: Mapping[str, Any]) -> Field | None:
    said = f" {schema['description']}" if isinstance(schema.get("description"), str) else ""
    options = _options(schema)
    if options is not None:
        return _choice(name, options, said)
    members = [member for member in schema.get("anyOf", (schema,)) if member.get("type") != "null"]
    kinds = [member for member in members if member.get("type") in ("boolean", "array", *_NUMBERS)]
    if len(kinds) != 1 or any(member.get("type") != "string" for member in members if member is not kinds[0]):
        return None
    one = kinds[0]
    if one["type"] == "boolean":
        return Field(name, (Asked("predicate", f"{name}: is it true?{said}"),), lambda told: probability(told[0]) >= _HALF)
    return _list(name, one, said) if one["type"] == "array" else _number(name, (schema, one), said)


def _options(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Text of an option -> value; None for what is no closed list."""
    if "const" in schema:
        values = [schema["const"]]
    elif "enum" in schema:
        values = list(schema["enum"])
    elif "anyOf" in schema:
        parts = [_options(member) for member in schema["anyOf"]]
        if all(part == {"null": None} for part in parts):
            return None
        found: dict[str, Any] = {}
        for part in parts:
            if part is None or found.keys() & part.keys():
                return None
            found |= part
        return found
    elif schema.get("type") == "null":
        values = [None]
    else:
        return None
    if any(isinstance(value, int) and not writable(value) for value in values):
        return None
    texts = {value if isinstance(value, str) else orjson.dumps(value).decode(): value for value in values}
    return texts if len(texts) == len(values) and "" not in texts else None


def _choice(name: str, options: Mapping[str, Any], said: str) -> Field | None:
    if len(options) == 1:
        only = next(iter(options.values()))
        return Field(name, (), lambda _: only)
    if len(options) > _MOST_OPTIONS:
        return None
    asked = Asked("choice", f"{name}: which one holds?{said}", tuple(options))

    def value(told: Sequence[Mapping[str, Any]]) -> Any:
        found, choice = distribution(told[0], "value", asked.options), told[0].get("choice")
        if not isinstance(choice, str) or choice not in found:
            raise Unbelievable("the choice is none of the options")
        if found[choice] < max(found.values()) - _SLACK:
            raise Unbelievable("the choice is not the most probable option")
        return options[choice]

    return Field(name, (asked,), value)


def _list(name: str, schema: Mapping[str, Any], said: str) -> Field | None:
    options = _options(schema.get("items", {}))
    if not options:
        return None
    quoted = (orjson.dumps(text).decode() for text in options)
    asked = tuple(Asked("predicate", f"{name}, option {text}: does it belong there?{said}") for text in quoted)
    least, most = schema.get("minItems", 0), min(schema.get("maxItems", len(options)), len(options))
    if least > most:
        return None
    values = list(options.values())

    def value(told: Sequence[Mapping[str, Any]]) -> Any:
        likely = [probability(one) for one in told]
        order = sorted(range(len(likely)), key=lambda place: -likely[place])
        return [values[place] for place in order[: min(max(least, sum(p >= _HALF for p in likely)), most)]]

    return Field(name, asked, value)


def _number(name: str, schemas: Sequence[Mapping[str, Any]], said: str) -> Field | None:
    numbers = numbers_of(*schemas)
    if numbers is None:
        return None
    if numbers.unit:
        asked = Asked("predicate", f"{name}: does it hold? Its probability is wanted.{said}")
        return Field(name, (asked,), lambda told: numbers.nearest(probability(told[0])))
    levels = {f"{value}" if numbers.whole else f"{value:.12g}": value for value in numbers.evenly(MOST_LEVELS)}
    if len(levels) == 1:
        return Field(name, (), lambda _: numbers.nearest(numbers.low))
    asked = Asked("score", f"{name}: how high is it, from {numbers.low:g} to {numbers.high:g}?{said}", tuple(levels))

    def value(told: Sequence[Mapping[str, Any]]) -> Any:
        found = distribution(told[0], "label", asked.options)
        return numbers.nearest(math.fsum(p * levels[label] for label, p in found.items()) / math.fsum(found.values()))

    return Field(name, (asked,), value)


def probability(told: Mapping[str, Any]) -> float:
    """The probability in `told`. Raises Unbelievable."""
    value = told.get("probability")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Unbelievable("a probability is no number from 0 to 1")
    return float(value)


def distribution(told: Mapping[str, Any], key: str, options: Sequence[str]) -> dict[str, float]:
    """The probability of each of `options`, which `told` has under `key`, once each. Raises Unbelievable."""
    rows = told.get("probabilities")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get(key), str) for row in rows):
        raise Unbelievable("the probabilities are no list of options")
    found = {row[key]: probability(row) for row in rows}
    if len(rows) != len(options) or found.keys() != set(options):
        raise Unbelievable("the probabilities are not those of the options")
    if abs(math.fsum(found.values()) - 1) > _SLACK:
        raise Unbelievable("the probabilities do not add up to 1")
    return found
