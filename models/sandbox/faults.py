"""The faults that the sandbox can inject: what each does to a response, and which one the next request gets."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.sandbox.decisions import DECISIONS_ONLY
from schemas.errors import ConfigError

_NUMBER = re.compile(r":-?\d+(?:\.\d+)?")
_TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "answer", "arguments": "{}"}}

STATUS_FAULTS = (
    "307", "400", "401", "402", "403", "404", "408", "409", "413", "422", "429", "500", "502", "503", "529",
)  # fmt: skip
"""Answer with this status instead of a completion."""

REFUSAL_FAULTS: dict[str, tuple[int, str]] = {
    "rate": (429, "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota"),
    "echo": (401, "invalid_api_key"),
    "context": (400, "context_length_exceeded"),
    "filter": (400, "content_filter"),
    "image": (400, "invalid_image_format"),
    "charset": (400, "invalid_request"),
}
"""Refuse with this status and code: 429 without a hint when to come back; no credit left; a 401 that quotes the key it was sent;
too long for the context; a content filter; an image that it can not read; a 400 whose charset is no character set."""

TRANSPORT_FAULTS = ("hang", "stall", "drip", "reset", "reset-body", "html", "empty", "truncated", "huge", "gzip")
"""Never answer; stop in the middle of the body; a byte at a time; cut the connection before the headers, or in the middle of the
body; a web page with status 200; `{}`; half a body; 16 MiB; compressed."""

ANSWER_FAULTS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "missing": lambda answers: answers[1:],
    "foreign": lambda answers: [*answers[1:], {**answers[0], "id": "zzzzzz"}],
    "renumbered": lambda answers: [{**answer, "id": str(place + 1)} for place, answer in enumerate(answers)],
    "duplicate": lambda answers: [*answers, answers[0]],
    "reordered": lambda answers: answers[::-1],
    "swapped": lambda answers: [{**answer, "id": id} for answer, id in zip(answers, _swapped(answers), strict=True)],
    "range": lambda answers: [_first(answers[0], lambda value: 10**9 if isinstance(value, int | float) else value), *answers[1:]],
    "negative": lambda answers: [_first(answers[0], lambda value: -1 if isinstance(value, int | float) else value), *answers[1:]],
    "vast": lambda answers: [_first(answers[0], lambda value: 1e300 if isinstance(value, int | float) else value), *answers[1:]],
    "types": lambda answers: [_first(answers[0], lambda value: [value]), *answers[1:]],
    "no-list": lambda answers: [],
}
"""Valid JSON that is no valid answer: records left out, under no id of ours, renumbered, twice, out of range, of wrong types.

Of "reordered" nothing is lost. "swapped" exchanges the ids of the first two records: nobody who was not told can see it."""

TEXT_FAULTS: dict[str, Callable[[str], str]] = {
    "fence": lambda text: f"```json\n{text}\n```",
    "prose": lambda text: f"Here are the answers you asked for: {text}",
    "epilogue": lambda text: f"{text}\nI hope this helps.",
    "bad-json": lambda text: text[: len(text) // 2],
    "nan": lambda text: _NUMBER.sub(":NaN", text, count=1),
    "infinity": lambda text: _NUMBER.sub(":-Infinity", text, count=1),
    "think": lambda text: f'<think>\nThe records say {{"answers": []}}. Let me see.\n</think>\n\n{text}',
    "think-open": lambda text: f"<think>\nLet me see. {text}",
}
"""What models without schema enforcement do to their JSON. "think" thinks aloud before it, "think-open" never ends that."""

COMPLETION_FAULTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "error-200": lambda reply: {"error": {"message": "the upstream failed", "code": 502}},
    "no-choices": lambda reply: {**reply, "choices": []},
    "null-content": lambda reply: _message(reply, {"content": None}),
    "tool-calls": lambda reply: _message(reply, {"content": None, "tool_calls": [_TOOL_CALL]}, finish="tool_calls"),
    "usage-absent": lambda reply: {name: value for name, value in reply.items() if name != "usage"},
    "usage-negative": lambda reply: {**reply, "usage": {"prompt_tokens": -7, "completion_tokens": -7, "total_tokens": -14}},
    "usage-absurd": lambda reply: {**reply, "usage": {"prompt_tokens": 10**12, "completion_tokens": 10**12, "total_tokens": 1}},
}
"""Completions that are none, or count what can not be."""

FINISH_FAULTS = ("refusal", "content_filter", "length")
"""A completion that ended for another reason than being finished."""

FAULTS: tuple[str, ...] = (
    *STATUS_FAULTS, *REFUSAL_FAULTS, *TRANSPORT_FAULTS, *ANSWER_FAULTS, *TEXT_FAULTS, *COMPLETION_FAULTS, *FINISH_FAULTS,
)  # fmt: skip


class FaultPlan:
    """Which fault the next request gets: first `schedule` in its order ("" for none), then each fault by its probability."""

    def __init__(self, schedule: Sequence[str], probabilities: Mapping[str, float], chance: random.Random) -> None:
        for name in (*filter(None, schedule), *probabilities):
            if name not in FAULTS + DECISIONS_ONLY:
                raise ConfigError(f"planning sandbox faults: {name!r} is none of {', '.join(FAULTS + DECISIONS_ONLY)}")
        if any(value < 0 for value in probabilities.values()) or sum(probabilities.values()) > 1:
            raise ConfigError("planning sandbox faults: probabilities must be positive and add up to 1 at most")
        self._schedule = list(reversed(schedule))
        self._probabilities = dict(probabilities)
        self._chance = chance

    def next(self) -> str:
        """The name of a fault, or ""."""
        if self._schedule:
            return self._schedule.pop()
        draw = self._chance.random() if self._probabilities else 1.0
        for name, probability in self._probabilities.items():
            draw -= probability
            if draw < 0:
                return name
        return ""


def parse_faults(text: str) -> dict[str, float]:
    """`"500=0.01,hang=0.002"` as probabilities. Raises ConfigError."""
    found: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(f"reading fault {part!r}: write NAME=PROBABILITY, such as 500=0.01") from None
    return found


def _first(answer: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """`answer` with every field but its id changed."""
    return {name: value if name == "id" else change(value) for name, value in answer.items()}


def _swapped(answers: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The ids, those of the first two exchanged."""
    ids = [answer["id"] for answer in answers]
    return [*ids[1::-1], *ids[2:]]


def _message(reply: Mapping[str, Any], changes: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    """`reply` with another message."""
    choice = reply["choices"][0]
    changed = {**choice, "message": {**choice["message"], **changes}, "finish_reason": finish or choice["finish_reason"]}
    return {**reply, "choices": [changed]}
