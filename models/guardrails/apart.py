"""Apart: a record whose text seems to speak to the model is asked in a request of its own: it can touch no other's answer.

Texts are anybody's, and whoever writes them must not take the endpoint from others by it: only so many of an agent's requests
are about one such record at a time. What does not get its turn before the deadline has no answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from models.contract import Answer, Question, Scorer
from models.guardrails.suspicion import suspicion
from models.masking.untrusted import untrusted_texts
from models.wrapper import Wrapper

WIDTH: Final = 4
"""Requests of their own at once, over all calls of an agent."""


class Apart(Wrapper):
    """A Scorer around `inner`. `found` counts the records that were asked alone, by what was suspected.

    It has to stand inside a Redact, whose placeholders it reads, and around whatever asks a model in batches.
    """

    def __init__(self, inner: Scorer) -> None:
        self.found = Counter[str]()
        self._places = asyncio.Semaphore(WIDTH)
        super().__init__(inner)

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in its order; in several calls at once where anything is suspected."""
        alone: list[int] = []
        together: list[int] = []
        for index, question in enumerate(questions):
            (together if self._suspected(question) is None else alone).append(index)
        if not alone or len(questions) == 1:
            return await self._inner.score(questions, deadline)
        # The healthy ones first: where there is room for one request only, it is theirs.
        groups = ([together] if together else []) + [[index] for index in alone]
        healthy = [self._inner.score([questions[index] for index in together], deadline)] if together else []
        answered = await asyncio.gather(*healthy, *(self._alone(questions[index], deadline) for index in alone))
        found = {
            index: answer
            for group, answers in zip(groups, answered, strict=True)
            for index, answer in zip(group, answers, strict=True)
        }
        return [found[index] for index in range(len(questions))]

    async def _alone(self, question: Question, deadline: float) -> Sequence[Answer[Any]]:
        """In its turn, in what time is left then."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            return [Answer("timeout", why=f"its text seems to speak to the model, and {WIDTH} of such were before it")]
        try:
            return await self._inner.score([question], deadline)
        finally:
            self._places.release()

    def _suspected(self, question: Question) -> str | None:
        try:
            why = suspicion(untrusted_texts(question))
        except Exception:  # noqa: BLE001  # features that can not be read: the scorer within says so of this record
            why = "unreadable"
        if why is not None:
            self.found[why] += 1
        return why
