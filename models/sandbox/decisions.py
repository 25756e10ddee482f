"""The sandbox's `POST /v1/decisions`: questions answered in probabilities by the same transparent rules.

They are found for the layout of models/chat/decisions.py; a question in another one gets a stable answer that means nothing.

An imitation by the types of OpenAI's client: what a hosted account refuses, and in which words, was not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson

from models.sandbox.rules import RULES

MOST_QUESTIONS: Final = 400
_KNOWN = ("model", "input", "questions", "prompt_cache_key", "prompt_cache_options", "safety_identifier")
_ANSWERS = re.compile(r"The questions ask for the fields of ([A-Za-z_][A-Za-z0-9_]*)\.")
_LAYOUT = re.compile(r'Record ([0-9a-f]{6}), field ([A-Za-z_]\w*)(?:, option ("(?:[^"\\]|\\.)*"))?:')
_SURE = 0.9


class BadDecision(Exception):
    """The text says what of the request is refused, `param` names it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, read: its questions, the features of its records by id, and the name of the answer type that it speaks of."""

    questions: Sequence[Mapping[str, Any]]
    records: Mapping[str, Any]
    answers: str


def read_wanted(body: bytes) -> Wanted:
    """Raises BadDecision."""
    try:
        request = orjson.loads(body)
        unknown = sorted(set(request) - set(_KNOWN))
        if unknown:
            raise BadDecision(f"Unknown parameter: {unknown[0]!r}.", unknown[0])
        questions, said = request["questions"], request["input"]
        if not isinstance(questions, list) or not 1 <= len(questions) <= MOST_QUESTIONS:
            raise BadDecision(f"questions must be 1 to {MOST_QUESTIONS}", "questions")
        if not all(map(_is_question, questions)):
            raise BadDecision("a question is none that is known", "questions")
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        developer = " ".join(one["content"] for one in messages if one["role"] == "developer")
        users = [one["content"] for one in messages if one["role"] == "user" and isinstance(one["content"], list)]
        parts = [part for content in users for part in content]
        data = [part["data"] for part in parts if part["type"] == "input_json"]
        records = {record["id"]: record["features"] for one in data for record in one.get("records", ())}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise BadDecision("the body is not a decision request") from None
    found = _ANSWERS.search(developer)
    return Wanted(questions, records, found[1] if found else "")


def _is_question(question: Mapping[str, Any]) -> bool:
    kind = question["type"]
    if kind == "choice":
        values = [choice["value"] for choice in question["choices"]]
        return 2 <= len(values) <= 255 and len({(type(value), value) for value in values}) == len(values)
    if kind == "score":
        return bool([level["label"] for level in question["levels"]])
    return bool(kind == "predicate") and "instructions" in question


def decided(wanted: Wanted, refused: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """An answer to each question; a refusal where `refused` says so of the features of the record that it is about."""
    told = {id: RULES[wanted.answers](features) for id, features in wanted.records.items()} if wanted.answers in RULES else {}
    answers = []
    for question in wanted.questions:
        found = _LAYOUT.match(str(question["instructions"]))
        name, features = question.get("name"), wanted.records.get(found[1]) if found else None
        if features is not None and refused(features):
            answers.append({"type": "refusal", "name": name})
            continue
        value = told.get(found[1], {}).get(found[2]) if found else None
        seed = _share(str(found.groups()[1:] if found else question["instructions"]), features)
        answers.append({"name": name, **_told(question, value, orjson.loads(found[3]) if found and found[3] else None, seed)})
    return answers


def _told(question: Mapping[str, Any], value: Any, option: str | None, seed: float) -> dict[str, Any]:
    kind = question["type"]
    if kind == "predicate":
        return {"type": kind, "probability": _predicate(value, option, seed)}
    group, key = ("choices", "value") if kind == "choice" else ("levels", "label")
    options = [one[key] for one in question[group]]
    if kind == "choice":
        best = options.index(value) if value in options else int(seed * len(options))
        rest = (1 - _SURE) / (len(options) - 1)
        likely = [_SURE if place == best else rest for place in range(len(options))]
        rows = [{"value": one, "probability": p} for one, p in zip(options, likely, strict=True)]
        return {"type": kind, "choice": options[best], "confidence": _SURE, "probabilities": rows}
    likely = _levels(options, value, seed)
    pairs = enumerate(zip(options, likely, strict=True))
    scored = [{"label": one, "value": place, "probability": p} for place, (one, p) in pairs]
    mean = sum(place * p for place, p in enumerate(likely))
    return {"type": kind, "score": mean, "confidence": max(likely), "probabilities": scored}


def _predicate(value: Any, option: str | None, seed: float) -> float:
    if option is not None and isinstance(value, list):
        # The rule names the strongest first.
        return round(0.95 - 0.02 * value.index(option), 4) if option in value else 0.05
    if isinstance(value, bool):
        return 0.97 if value else 0.03
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else seed


def _levels(labels: Sequence[str], value: Any, seed: float) -> list[float]:
    """Probabilities on the two levels around `value`, so that their mean is it."""
    try:
        points = [float(label) for label in labels]
    except ValueError:
        points = [float(place) for place in range(len(labels))]
    aim = float(value) if isinstance(value, int | float) else points[0] + seed * (points[-1] - points[0])
    aim = min(max(aim, points[0]), points[-1])
    likely = [0.0] * len(points)
    for place in range(len(points) - 1):
        low, high = points[place], points[place + 1]
        if low <= aim <= high and high > low:
            likely[place + 1] = (aim - low) / (high - low)
            likely[place] = 1 - likely[place + 1]
            return likely
    likely[0] = 1.0
    return likely


def _share(about: str, features: Any) -> float:
    """From 0 to below 1, the same for the same question about the same features."""
    seed = sha256(about.encode() + orjson.dumps(features, option=orjson.OPT_SORT_KEYS)).digest()
    return int.from_bytes(seed[:4]) / 2**32


def _changed(answers: list[dict[str, Any]], change: Callable[[float], Any]) -> list[dict[str, Any]]:
    """The first answer with other probabilities."""
    first = dict(answers[0])
    if "probability" in first:
        first["probability"] = change(first["probability"])
    for row in first.get("probabilities", ()):
        row["probability"] = change(row["probability"])
    return [first, *answers[1:]]


def _wrong(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [answer | {"choice": "none of yours"} if "choice" in answer else answer for answer in answers]


DECISION_FAULTS: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "missing": lambda answers: answers[1:],
    "foreign": lambda answers: [{**answers[0], "name": "zzzzzz_0"}, *answers[1:]],
    "renumbered": lambda answers: [{**answer, "name": str(place)} for place, answer in enumerate(answers)],
    "duplicate": lambda answers: [*answers, answers[0]],
    "reordered": lambda answers: answers[::-1],
    "swapped": lambda answers: [
        {**answers[1], "name": answers[0]["name"]}, {**answers[0], "name": answers[1]["name"]}, *answers[2:],
    ],
    "range": lambda answers: _changed(answers, lambda _: 1.5),
    "negative": lambda answers: _changed(answers, lambda _: -0.1),
    "vast": lambda answers: _changed(answers, lambda _: 1e300),
    "types": lambda answers: _changed(answers, str),
    "nan": lambda answers: _changed(answers, lambda _: None),
    "no-list": lambda answers: [],
    "refusal": lambda answers: [{"type": "refusal", "name": answers[0]["name"]}, *answers[1:]],
    "choice": _wrong,
    "sum": lambda answers: [
        {**one, "probabilities": [{**row, "probability": row["probability"] / 2} for row in one["probabilities"]]}
        if "probabilities" in one else one for one in answers
    ],
}  # fmt: skip
"""What the faults of these names do to the answers of a decision; "nan" is written as NaN (`decision_body`)."""
DECISIONS_ONLY: Final = ("choice", "sum")


def decision(answers: Sequence[Mapping[str, Any]], model: str, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """The reply with these answers."""
    return {
        "answers": list(answers),
        "model": model,
        "usage": {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + output_tokens,
        },
    }


def decision_body(reply: Mapping[str, Any], fault: str) -> bytes:
    """The reply as JSON, or nearly."""
    body = orjson.dumps(reply)
    return body.replace(b'"probability":null', b'"probability":NaN') if fault == "nan" else body
