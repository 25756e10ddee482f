"""Aligns what a model said with what it was asked, by the ids minted for that request and by nothing else.

Pure. What is kept is exactly what carries an id of ours, once, with a valid answer. Order, count and record content decide
nothing: a model that renumbers its answers loses them, and can never give one record another's answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

A = TypeVar("A", bound=BaseModel)

# One fence around the whole reply is the habit of models without schema enforcement; prose around it is not accepted.
_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\r?\n(.*?)\r?\n?```\s*", re.DOTALL | re.IGNORECASE)
_RAW_TEXT = 500
_MOST_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Item(Generic[A]):
    """What was said about one question. `value` is there exactly if `status` is "answered"."""

    status: Literal["answered", "invalid", "missing"]
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
    replies = _replies(content)
    if isinstance(replies, str):
        broken: Item[A] = Item("invalid", raw=content[:_RAW_TEXT], why=replies)
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
    items = tuple(_item(found.get(known), seen[known], answer) for known in ids)
    return Aligned(items, foreign, sum(count > 1 for count in seen.values()))


def _replies(content: str) -> list[Any] | str:
    """The list of answers, or why there is none."""
    fenced = _FENCE.fullmatch(content)
    try:
        reply = orjson.loads(fenced[1] if fenced else content)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return "the reply is not JSON"
    answers = reply.get("answers") if isinstance(reply, dict) else None
    return answers if isinstance(answers, list) else 'the reply has no list "answers"'


def _item(reply: dict[str, Any] | None, times: int, answer: type[A]) -> Item[A]:
    if reply is None:
        return Item("missing", why="no answer carried this record's id")
    if times > 1:
        # Which of them is meant can not be known, even where they agree: a model that repeats itself has lost count.
        return Item("invalid", raw=reply, why=f"answered {times} times")
    return checked(reply, answer)


def checked(reply: dict[str, Any], answer: type[A]) -> Item[A]:
    """One raw answer, with the id it carried, as an answered or an invalid item."""
    fields = {name: value for name, value in reply.items() if name != "id"}
    try:
        # Strict and from JSON: "85" is no number and true is no 1, while enums and decimals still come from strings.
        value = answer.model_validate_json(orjson.dumps(fields), strict=True)
    except ValidationError as error:
        return Item("invalid", raw=reply, why=_explain(error))
    except Exception as error:  # noqa: BLE001  # nesting past orjson's limit, or an agent's validator: one record's fault
        return Item("invalid", raw=None, why=f"checking the answer failed with {type(error).__name__}")
    return Item("answered", value, reply)


def _explain(error: ValidationError) -> str:
    """The first few problems by field, without the values: a `why` is read by more people than an audit."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    said = ((".".join(map(str, problem["loc"])) or "answer", problem["msg"]) for problem in problems[:_MOST_ERRORS])
    return "; ".join(f"{field}: {message}" for field, message in said)[:300]
