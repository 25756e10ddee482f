"""Scorers that need nothing: one answers at once through a function (benches, tests), one never answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from models.contract import Answer, Question

A = TypeVar("A", bound=BaseModel)


class InstantScorer(Generic[A]):
    """Answers each question through `function`, at once and on the event loop.

    An exception of it, or an exit, is "invalid" for its record.
    """

    def __init__(
        self, function: Callable[[Any], A], *, name: str = "instant", tier: Literal["model", "scorecard", "python"] = "python"
    ) -> None:
        self.name = name
        self._function = function
        self._tier = tier

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[A]]:
        """One answer per question in order."""
        return [self._score(question, position) for position, question in enumerate(questions)]

    async def close(self) -> None:
        """Nothing to give back."""

    def _score(self, question: Question, position: int) -> Answer[A]:
        try:
            value = self._function(question.features)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the contract: one record's fault stays with it
            return Answer("invalid", tier=self._tier, why=f"{self.name} failed with {type(error).__name__}", position=position)
        return Answer("answered", value, self._tier, position=position, model_returned=self.name)


class NoModel:
    """What stands where an agent asks a language model and none is configured: every answer is "unavailable" and says why."""

    def __init__(self, why: str = "no model is configured: set HEADRACE_MODEL_BASE_URL") -> None:
        self.name = "no-model"
        self._why = why

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """One "unavailable" per question, at once."""
        return [Answer("unavailable", why=self._why) for _ in questions]

    async def close(self) -> None:
        """Nothing to give back."""
