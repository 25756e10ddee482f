"""Scorecard: a points table that anybody can check by hand, as the answer without a model.

    card = Scorecard(
        "credit-card", RiskAnswer, intercept=20, answer=lambda tally, features: RiskAnswer(risk=tally.clamped(0, 100)),
        table=(
            Bins("amount", ((2_000, 0), (8_000, 6)), above=14, missing=8),   # up to and including each edge
            Values("history", {"paid": -8, "late": 9}, otherwise=0, missing=4),
        ),
    )

Pure and immediate: it waits for nothing, so it can answer when nothing else does.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isnan
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from models.chat.field_names import names_of, place
from models.contract import Answer, Question
from schemas.errors import ConfigError

A = TypeVar("A", bound=BaseModel)


class Unreadable(TypeError):
    """A feature that its row can not read. The message has no value of it."""


@dataclass(frozen=True, slots=True)
class Bins:
    """Points of a number: of the first edge that it does not exceed, `above` past the last, `missing` for None and NaN."""

    feature: str
    upto: tuple[tuple[float, float], ...]
    above: float
    missing: float = 0.0

    def points(self, value: Any) -> float:
        """The points of `value`. Raises Unreadable if it is no number."""
        if value is None:
            return self.missing
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise Unreadable(f"{self.feature} is no number")
        if isnan(value):
            return self.missing
        place = bisect_left([edge for edge, _ in self.upto], value)
        return self.upto[place][1] if place < len(self.upto) else self.above


@dataclass(frozen=True, slots=True)
class Values:
    """Points of a category: by its text (an enum's value; "true" and "false"), `otherwise` where the table has none."""

    feature: str
    table: Mapping[str, float]
    otherwise: float = 0.0
    missing: float = 0.0

    def points(self, value: Any) -> float:
        """The points of `value`."""
        if value is None:
            return self.missing
        if isinstance(value, enum.Enum):
            value = value.value
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        return self.table.get(text, self.otherwise)


@dataclass(frozen=True, slots=True)
class Tally:
    """The sum over one record, and what each feature added to it, in the order of the table."""

    points: float
    parts: tuple[tuple[str, float], ...]

    def clamped(self, least: int, most: int) -> int:
        """The sum as a whole number from `least` to `most`."""
        return max(least, min(most, round(self.points)))

    def drivers(self, count: int) -> list[tuple[str, float]]:
        """The `count` features that added most, in either direction; those that added nothing left out."""
        return sorted((part for part in self.parts if part[1]), key=lambda part: -abs(part[1]))[:count]


@dataclass(frozen=True)
class Scorecard(Generic[A]):
    """A Scorer of tier "scorecard". `answer` makes the answer from the tally and the features.

    Raises ConfigError for a table that can not work: no rows, a feature twice, edges that do not rise.
    """

    name: str
    answer_model: type[A]
    table: Sequence[Bins | Values]
    answer: Callable[[Tally, Any], A]
    intercept: float = 0.0
    _rows: tuple[tuple[str, Callable[[Any], float]], ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        features = [row.feature for row in self.table]
        if not features or len(set(features)) < len(features):
            raise ConfigError(f"declaring scorecard {self.name}: it needs rows, each about another feature")
        for row in self.table:
            edges = [edge for edge, _ in row.upto] if isinstance(row, Bins) else []
            if edges != sorted(set(edges)):
                raise ConfigError(f"declaring scorecard {self.name}: the edges of {row.feature} must rise")
        object.__setattr__(self, "_rows", tuple((row.feature, row.points) for row in self.table))

    def tally(self, features: BaseModel) -> Tally:
        """The points of one record. Raises Unreadable where a feature is not there or of the wrong kind."""
        try:
            parts = tuple((feature, points(getattr(features, feature))) for feature, points in self._rows)
        except AttributeError:
            lacking = [feature for feature, _ in self._rows if not hasattr(features, feature)]
            raise Unreadable(f"{type(features).__name__} has no {', '.join(lacking)}") from None
        return Tally(self.intercept + sum(points for _, points in parts), parts)

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[A]]:
        """One answer per question in order, at once; a record that the table can not read is "invalid"."""
        return [self._score(question, position) for position, question in enumerate(questions)]

    async def close(self) -> None:
        """Nothing to give back."""

    def _score(self, question: Question, position: int) -> Answer[A]:
        try:
            tally = self.tally(question.features)
            value = self.answer(tally, question.features)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # what one record does to the table or the agent's function stays with it
            why = f"scorecard {self.name}: {_short(error, self.answer_model)}"
            return Answer("invalid", tier="scorecard", why=why, position=position)
        raw = {"points": tally.points, "parts": dict(tally.parts)}
        return Answer("answered", value, "scorecard", raw=raw, position=position, model_returned=self.name)


def _short(error: BaseException, answer: type[BaseModel]) -> str:
    """A pydantic error quotes the value; its fields say enough."""
    if isinstance(error, ValidationError):
        fields = (place(problem["loc"], names_of(answer)) for problem in error.errors(include_input=False)[:3])
        return f"no valid {', '.join(fields)}"
    # The type only: the message of the agent's function, or of a feature's own property, may quote the record.
    return f"it failed with {type(error).__name__}" if not isinstance(error, Unreadable) else str(error)
