"""Recorded: an answer is given once the calls it took are where a successor reads what they cost, or time is up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from models.contract import Answer, Question, Scorer
from models.wrapper import Wrapper

_GRACE = 1.0
"""Seconds past its deadline that an answer may wait for its calls' records; after two it would be thrown away."""


class Recorded(Wrapper):
    """A Scorer around `inner`, all that an agent with a budget asks: it waits once, for the calls of all tiers and fallbacks.

    `recorded` returns once every call that has ended is where a successor reads it: no answer is given before that, or more
    could be spent without a trace than what is under way. Where it takes longer than the deadline, the answers do not wait on.
    Its place is outside any cascade: a tier that waited would do so in the time of the next one.
    """

    def __init__(self, inner: Scorer, recorded: Callable[[], Awaitable[None]]) -> None:
        super().__init__(inner)
        self._recorded = recorded

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        answers = await self._inner.score(questions, deadline)
        if any(map(_may_have_called, answers)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline + _GRACE):
                    await self._recorded()
        return answers


def _may_have_called(answer: Answer[Any]) -> bool:
    """Whether a request may have been made for it: an answer without a call may come after a call that brought none."""
    return answer.cache != "hit" or bool(answer.tiers)
