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

    Questions of partitions that have nothing left are answered "budget" at once. A request that was refused since it was
    about several partitions is asked again for each of them alone, once.

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
        answers: list[Answer[Any]] = [Answer("budget", why=f"the budget for {self._day()} is spent")] * len(questions)
        await self._ask(questions, range(len(questions)), answers, deadline)
        refused: dict[int, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer.status == "budget":
                refused.setdefault(questions[index].partition, []).append(index)
        if refused and len({question.partition for question in questions}) > 1:
            for indices in refused.values():
                await self._ask(questions, indices, answers, deadline)
        if self._recorded is not None and any(answer.call_id is not None for answer in answers):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline + _GRACE):
                    await self._recorded()
        return answers

    async def _ask(
        self, questions: Sequence[Question], indices: Sequence[int], answers: list[Answer[Any]], deadline: float
    ) -> None:
        """Ask about those whose partition has anything left, and put their answers in place."""
        day = self._day()
        asked = [index for index in indices if self._budget.left(questions[index].partition, day) > 0]
        if asked:
            for index, answer in zip(asked, await self._inner.score([questions[i] for i in asked], deadline), strict=True):
                answers[index] = answer
