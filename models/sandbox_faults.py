"""The faults that the sandbox can inject: what each does to a response, and which one the next request gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.errors import ConfigError

STATUS_FAULTS = ("307", "400", "401", "403", "404", "408", "409", "422", "429", "500", "502", "503", "529")
"""Answer with this status instead of a completion."""

TRANSPORT_FAULTS = ("hang", "drip", "reset", "html", "empty", "truncated", "huge", "gzip")
"""Never answer; a byte at a time; cut the connection; a web page with status 200; `{}`; half a body; 16 MiB; compressed."""

ANSWER_FAULTS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "missing": lambda answers: answers[1:],
    "foreign": lambda answers: [*answers[1:], {**answers[0], "id": "zzzzzz"}],
    "renumbered": lambda answers: [{**answer, "id": str(place + 1)} for place, answer in enumerate(answers)],
    "duplicate": lambda answers: [*answers, answers[0]],
    "reordered": lambda answers: answers[::-1],
    "range": lambda answers: [_first(answers[0], lambda value: 10**9 if isinstance(value, int | float) else value), *answers[1:]],
    "types": lambda answers: [_first(answers[0], lambda value: [value]), *answers[1:]],
    "no-list": lambda answers: [],
}
"""Valid JSON that is no valid answer: records left out, under no id of ours, renumbered, twice, out of range, of wrong types."""

TEXT_FAULTS: dict[str, Callable[[str], str]] = {
    "fence": lambda text: f"```json\n{text}\n```",
    "prose": lambda text: f"Here are the answers you asked for: {text}",
    "bad-json": lambda text: text[: len(text) // 2],
}
"""What models without schema enforcement do to their JSON."""

FINISH_FAULTS = ("refusal", "content_filter", "length")
"""A completion that ended for another reason than being finished."""

FAULTS: tuple[str, ...] = (*STATUS_FAULTS, *TRANSPORT_FAULTS, *ANSWER_FAULTS, *TEXT_FAULTS, *FINISH_FAULTS)


class FaultPlan:
    """Which fault the next request gets: first `schedule` in its order ("" for none), then each fault by its probability."""

    def __init__(self, schedule: Sequence[str], probabilities: Mapping[str, float], chance: random.Random) -> None:
        for name in (*filter(None, schedule), *probabilities):
            if name not in FAULTS:
                raise ConfigError(f"planning sandbox faults: {name!r} is none of {', '.join(FAULTS)}")
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
