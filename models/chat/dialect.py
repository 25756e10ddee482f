"""What an OpenAI-compatible endpoint understands, learned from its own 400 answers, one step at a time.

Servers differ in a few places that matter here: how they can be held to JSON, what the limit on output tokens is called and how
high it may be, which parameters of sampling may be set, and whether a model that thinks has to be told not to. A request starts
with all of it; an endpoint that names the parameter it does not know is asked the same thing without it, and remembered, for all
agents that ask it. What each vendor says is in docs/models.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from models.chat.failures import LONGEST_TEXT, about_records
from models.chat.quotes import Quotes

Format = Literal["json_schema", "json_object", "plain"]
Limit = Literal["max_tokens", "max_completion_tokens"]
THINKING = "enable_thinking"
"""What DashScope, and others who serve Qwen, call the switch."""
_FORMAT_TEXTS = ("response_format", "json_schema", "json_object", "json schema", "grammar", "guided", "structured output")
_FORMATS: Final[tuple[Format, ...]] = ("json_schema", "json_object", "plain")
_LIMITS: Final[tuple[Limit, ...]] = ("max_tokens", "max_completion_tokens")
_OUT_OF_RANGE = re.compile(r"too (?:large|big|high)|at most|range of|above maximum|less than or equal|exceeds|<=", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\d)\d{1,9}(?!\d)")
_LEAST_OUTPUT = 16
# It must be false for calls that do not stream, only supports those that do, or no JSON mode while it is true: all are said.
_THINKS = re.compile(r"enable[_ ]thinking.*(?:\bfalse\b|stream|\btrue\b)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask one endpoint. Each `adapt` moves one way only, so adapting ends.

    `without` are parameters it does not take. `most_output` is the most output tokens that a request may ask for, None where
    nobody said. Where `thinking` is false, a model that thinks by default is told not to.
    """

    format: Format = "json_schema"
    limit: Limit = "max_tokens"
    without: frozenset[str] = frozenset()
    most_output: int | None = None
    thinking: bool = True


def adapt(
    dialect: Dialect, error: Mapping[str, Any], sent: Collection[str], reserved: int = 0, beside: Quotes | None = None
) -> Dialect | None:
    """The dialect to try after a 400 whose body's `error` object is given; None if asking differently would not help.

    `sent` are the names of the parameters that may be left out, `reserved` the output tokens that were asked for. Looks at the
    `param` that OpenAI's servers send; where it is absent, at the parameter names in the message, because compatible servers
    often send nothing else. A name that a record of `beside` has too is none where the message is all there is.
    """
    param, message = error.get("param"), str(error.get("message", ""))[:LONGEST_TEXT]
    if about_records(param):
        return None
    if beside is not None and not param:
        message = beside.unsaid(message, _signs(sent))
    text = param if isinstance(param, str) and param else message
    if dialect.thinking and _THINKS.search(message):
        return replace(dialect, thinking=False)
    if any(name in text for name in _LIMITS) and not any(name in sent for name in _LIMITS):
        limited = _limited(dialect, message if _OUT_OF_RANGE.search(message) else text, reserved)
        if limited is not None:
            return limited
    refused = next((name for name in sent if name not in dialect.without and _named(name, text)), None)
    if refused is not None:
        return replace(dialect, without=dialect.without | {refused})
    if any(name in text.lower() for name in _FORMAT_TEXTS):
        if dialect.format == "json_schema":
            return replace(dialect, format="json_object")
        if dialect.format == "json_object":
            return replace(dialect, format="plain")
    return None


def _signs(sent: Collection[str]) -> re.Pattern[str]:
    """All that `adapt` may take for the name of a parameter."""
    names = (*_LIMITS, *_FORMAT_TEXTS, THINKING, "enable thinking", *sent)
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))), re.IGNORECASE)


def joined(one: Dialect, other: Dialect) -> Dialect:
    """What both have found out: each adapts to refusals of its own, and neither is to forget the other's."""
    if one == other:
        return one
    caps = [most for most in (one.most_output, other.most_output) if most is not None]
    return Dialect(
        format=max(one.format, other.format, key=_FORMATS.index),
        limit=max(one.limit, other.limit, key=_LIMITS.index),
        without=one.without | other.without,
        most_output=min(caps, default=None),
        thinking=one.thinking and other.thinking,
    )


def _limited(dialect: Dialect, text: str, reserved: int) -> Dialect | None:
    """After a refusal of the limit on output tokens: a lower one where it was too high, else its other name."""
    if _OUT_OF_RANGE.search(text):
        lower = max((number for number in map(int, _NUMBER.findall(text)) if number < reserved), default=0)
        most = lower if lower >= _LEAST_OUTPUT else reserved // 2
        return replace(dialect, most_output=most) if most >= _LEAST_OUTPUT else None
    return replace(dialect, limit="max_completion_tokens") if dialect.limit == "max_tokens" else None


def _named(name: str, text: str) -> bool:
    """As a word of its own: "seed" is not in "seedy", nor "n" in anything."""
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text) is not None
