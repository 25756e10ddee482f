"""WithinBudget: partitions whose part of the day's budget is spent do not take their neighbours' answers with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from models.budget import Budget
from models.contract import Answer, Question, Scorer
from models.wrapper import Wrapper

_GRACE = 1.0
"""Seconds past its deadline that an answer may wait for its call's record; after two it would be thrown away."""


class WithinBudget(Wrapper):
    """A Scorer around `inner`, whose gates keep to `budget` (models/budget_gate.py).

    Questions of partitions that have nothing left are answered "budget" at once. Those of partitions that have something left,
    but not their part of a request, are left out where the request is made: only there it is known what it may cost.

    `recorded` returns once every call that has ended is where a successor reads it: no answer is given before that, or more
    could be spent without a trace than what is under way. Where it takes longer than the deadline, the answers do not wait on.
    """

    def __init__(
        self, inner: Scorer, budget: Budget, day: Callable[[], str], recorded: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        super().__init__(inner)
        self._budget = budget
        self._day = day
        self._recorded = recorded

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        day = self._day()
        answers: list[Answer[Any]] = [Answer("budget", why=f"the budget for {day} is spent")] * len(questions)
        asked = [index for index, question in enumerate(questions) if self._budget.left(question.partition, day) > 0]
        if asked:
            for index, answer in zip(asked, await self._inner.score([questions[i] for i in asked], deadline), strict=True):
                answers[index] = answer
        if self._recorded is not None and any(answer.call_id is not None for answer in answers):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline + _GRACE):
                    await self._recorded()
        return answers
