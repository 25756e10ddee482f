"""Aligns what a model said with what it was asked, by the ids minted for that request and by nothing else.

Pure. What is kept is exactly what carries an id of ours, once, with a valid answer. Order, count and record content decide
nothing: a model that renumbers its answers loses them, and can never give one record another's answer.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Literal, TypeVar, get_args

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from models.chat.field_names import names_of, place

A = TypeVar("A", bound=BaseModel)

_FENCE = "```"
# A model that thinks aloud, behind a server that does not part the two. Only a whole block before all else is dropped.
_THINK, _THOUGHT = "<think>", "</think>"
_INT64 = 2**63
_RAW_TEXT = 500
_MOST_ERRORS = 3
# Messages of these may quote what was said; those of an agent's own validators are its own business, and may too.
_QUOTING = frozenset({
    "value_error", "assertion_error", "union_tag_invalid", "uuid_parsing", "json_invalid", "get_attribute_error",
    "iteration_error", "mapping_type",
})  # fmt: skip
_PLAIN = frozenset(get_args(ErrorType)) - _QUOTING
# Past these a reply is no answer to what was asked, and only costs the time of all others.
_MORE_ANSWERS = 100
_MOST_LOOSE_NUMBERS = 20_000


@dataclass(frozen=True, slots=True)
class Item(Generic[A]):
    """What was said about one question. `value` is there exactly if `status` is "answered"."""

    status: Literal["answered", "invalid", "missing", "refused"]
    value: A | None = None
    raw: Any = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Aligned(Generic[A]):
    """One item per id asked for, in that order; `foreign` counts answers under no id of ours, `duplicates` ids answered twice."""

    items: tuple[Item[A], ...]
    foreign: int = 0
    duplicates: int = 0

    @property
    def whole(self) -> bool:
        """Whether every question was answered and nothing else was said."""
        return not self.foreign and not self.duplicates and all(item.status == "answered" for item in self.items)


def align(content: str, ids: Sequence[str], answer: type[A]) -> Aligned[A]:
    """The items for `ids` out of a model's reply. Total: any text gives exactly one item per id."""
    if not content.strip():
        return Aligned((Item("invalid", why="the reply has no text"),) * len(ids))
    replies, loose = _replies(content)
    if len(replies) > 2 * len(ids) + _MORE_ANSWERS and not isinstance(replies, str):
        replies = f"the reply has {len(replies)} answers to {len(ids)} questions"
    if isinstance(replies, str):
        # A text about several may quote any of them: in their judgements it would outlive the erasure of one.
        broken: Item[A] = Item("invalid", raw=content[:_RAW_TEXT] if len(ids) == 1 else None, why=replies)
        return Aligned((broken,) * len(ids))
    asked = set(ids)
    found: dict[str, dict[str, Any]] = {}
    seen: Counter[str] = Counter()
    foreign = 0
    for reply in replies:
        known = reply.get("id") if isinstance(reply, dict) else None
        if isinstance(known, str) and known in asked:
            seen[known] += 1
            found[known] = reply
        else:
            foreign += 1
    items = tuple(_item(found.get(known), seen[known], answer, loose) for known in ids)
    return Aligned(items, foreign, sum(count > 1 for count in seen.values()))


def _replies(content: str) -> tuple[list[Any] | str, bool]:
    """The list of answers, or why there is none; and whether numbers in it may be none."""
    text = _unfenced(_without_thoughts(content))
    loose = False
    try:
        reply = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        reply, loose = loosely(text), True
        if reply is None:
            return "the reply is not JSON", loose
    answers = reply.get("answers") if isinstance(reply, dict) else None
    return answers if isinstance(answers, list) else 'the reply has no list "answers"', loose


def _unfenced(content: str) -> str:
    """One fence around the whole reply is the habit of models without schema enforcement; prose around it is not accepted."""
    text = content.strip()
    if not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return content
    first, newline, rest = text.partition("\n")
    language = first.removeprefix(_FENCE).rstrip(" \t\r").lower()
    return rest.removesuffix(_FENCE) if newline and language in ("", "json") else content


def _without_thoughts(content: str) -> str:
    if _THINK not in content[:100]:
        return content
    before, _, rest = content.partition(_THINK)
    _, closed, answer = rest.partition(_THOUGHT)
    return answer if closed and not before.strip() else content


class _NotFinite(str):
    """A number that JSON does not have, as it was written: NaN, Infinity, 1e999."""

    __slots__ = ()


def loosely(text: str) -> Any:
    """What is JSON but for numbers that are none: they cost their own records the answer, not the neighbours. Else None."""
    numbers = count(1)

    def bounded(read: Callable[[str], Any]) -> Callable[[str], Any]:
        def number(said: str) -> Any:
            if next(numbers) > _MOST_LOOSE_NUMBERS:
                raise ValueError("more numbers than an answer has")
            return read(said)

        return number

    try:
        reply = json.loads(text, parse_constant=bounded(_NotFinite), parse_float=bounded(_float), parse_int=bounded(_int))
        orjson.dumps(reply)  # or it could not be audited: half a surrogate pair, for one
    except (ValueError, TypeError, RecursionError):
        return None
    return reply


def _float(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _NotFinite(text[:_RAW_TEXT])


def _int(text: str) -> Any:
    return int(text) if len(text) < 20 and abs(int(text)) < _INT64 else _float(text)


def _not_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_not_finite, value.values()))
    return any(map(_not_finite, value)) if isinstance(value, list) else isinstance(value, _NotFinite)


def _item(reply: dict[str, Any] | None, times: int, answer: type[A], loose: bool) -> Item[A]:
    if reply is None:
        return Item("missing", why="no answer carried this record's id")
    if times > 1:
        # Which of them is meant can not be known, even where they agree: a model that repeats itself has lost count.
        return Item("invalid", raw=reply, why=f"answered {times} times")
    return checked(reply, answer, loose)


def checked(reply: dict[str, Any], answer: type[A], loose: bool = False) -> Item[A]:
    """One raw answer, with the id it carried, as an answered or an invalid item. `loose`: numbers in it may be none."""
    fields = {name: value for name, value in reply.items() if name != "id"}
    try:
        if loose and _not_finite(fields):
            return Item("invalid", raw=reply, why="a number of it is not finite")
        # Strict and from JSON: "85" is no number and true is no 1, while enums and decimals still come from strings.
        value = answer.model_validate_json(orjson.dumps(fields), strict=True)
    except ValidationError as error:
        return Item("invalid", raw=reply, why=_explain(error, answer))
    except Exception as error:  # noqa: BLE001  # nesting past orjson's limit, or an agent's validator: one record's fault
        return Item("invalid", raw=None, why=f"checking the answer failed with {type(error).__name__}")
    return Item("answered", value, reply)


def _explain(error: ValidationError, answer: type[BaseModel]) -> str:
    """The first few problems by field, in no words of the model: a `why` is read by more people than an audit."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_ERRORS]
    names = names_of(answer)
    return "; ".join(
        f"{place(problem['loc'], names)}: {problem['msg'] if problem['type'] in _PLAIN else problem['type']}"
        for problem in problems
    )[:300]
