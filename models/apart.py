"""Apart: a record whose text seems to speak to the model is asked in a request of its own: it can touch no other's answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from models.contract import Answer, Question, Scorer
from models.suspicion import suspicion
from models.untrusted import untrusted_texts
from models.wrapper import Wrapper


class Apart(Wrapper):
    """A Scorer around `inner`. `found` counts the records that were asked alone, by what was suspected.

    It has to stand inside a Redact, whose placeholders it reads, and around whatever asks a model in batches.
    """

    def __init__(self, inner: Scorer) -> None:
        self.found = Counter[str]()
        super().__init__(inner)

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in its order; in several calls at once where anything is suspected."""
        alone: list[int] = []
        together: list[int] = []
        for index, question in enumerate(questions):
            (together if self._suspected(question) is None else alone).append(index)
        if not alone or len(questions) == 1:
            return await self._inner.score(questions, deadline)
        groups = [[index] for index in alone] + ([together] if together else [])
        # The healthy ones first: where there is room for one request only, it is theirs.
        groups.sort(key=len, reverse=True)
        answered = await asyncio.gather(*(self._inner.score([questions[i] for i in group], deadline) for group in groups))
        found = {
            index: answer
            for group, answers in zip(groups, answered, strict=True)
            for index, answer in zip(group, answers, strict=True)
        }
        return [found[index] for index in range(len(questions))]

    def _suspected(self, question: Question) -> str | None:
        try:
            why = suspicion(untrusted_texts(question))
        except Exception:  # noqa: BLE001  # features that can not be read: the scorer within says so of this record
            why = "unreadable"
        if why is not None:
            self.found[why] += 1
        return why
