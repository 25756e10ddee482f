"""WithinBudget: partitions whose part of the day's budget is spent do not take their neighbours' answers with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from models.budget.budget import Budget
from models.contract import Answer, Question, Scorer
from models.wrapper import Wrapper


class WithinBudget(Wrapper):
    """A Scorer around `inner`, whose gates keep to `budget` (models/budget/budget_gate.py).

    Questions of partitions that have nothing left are answered "budget" at once. Those of partitions that have something left,
    but not their part of a request, are left out where the request is made: only there it is known what it may cost.
    """

    def __init__(self, inner: Scorer, budget: Budget, day: Callable[[], str]) -> None:
        super().__init__(inner)
        self._budget = budget
        self._day = day

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        day = self._day()
        answers: list[Answer[Any]] = [Answer("budget", why=f"the budget for {day} is spent")] * len(questions)
        asked = [index for index, question in enumerate(questions) if self._budget.left(question.partition, day) > 0]
        self._budget.refused += len(asked) < len(questions)
        if asked:
            for index, answer in zip(asked, await self._inner.score([questions[i] for i in asked], deadline), strict=True):
                answers[index] = answer
        return answers
