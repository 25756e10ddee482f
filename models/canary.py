"""Canary: asks a share of the records that were asked in a batch once more, alone, and lets batches shrink where answers flip.

The answer of the batch stands and is not kept waiting; the other one is for the measurement only. It costs what a call costs,
goes through the same gates, and is a Call in the audit like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from models.contract import Answer, Question, Scorer
from models.flips import FlipMeter, same
from models.wrapper import Wrapper

_MOST_AT_ONCE = 8
_WHOLE = 2**32


class Canary(Wrapper):
    """A Scorer around `inner` whose batches have at most `meter.size` questions.

    `share` of the records (chosen by their decision id, so that a repeat chooses the same) is asked alone too. It must stand
    inside any cache: a cached answer agrees with itself.
    """

    def __init__(self, inner: Scorer, meter: FlipMeter, *, share: float) -> None:
        self.meter = meter
        super().__init__(inner)
        self._share = share
        self._asking = set[asyncio.Task[None]]()

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in several calls where batches had to shrink."""
        size = self.meter.size
        groups = [questions[start : start + size] for start in range(0, len(questions), size)]
        if len(groups) <= 1:
            return await self._group(questions, deadline)
        answered = await asyncio.gather(*(self._group(group, deadline) for group in groups))
        return [answer for answers in answered for answer in answers]

    async def _group(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        answers = await self._inner.score(questions, deadline)
        if len(questions) > 1:
            for question, answer in zip(questions, answers, strict=True):
                if answer.status == "answered" and len(self._asking) < _MOST_AT_ONCE and self._chosen(question):
                    task = asyncio.ensure_future(self._compare(question, answer, len(questions), deadline))
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)
        return answers

    def _chosen(self, question: Question) -> bool:
        drawn = int.from_bytes(sha256(b"canary" + question.decision_id.encode()).digest()[:4], "big")
        return drawn < self._share * _WHOLE

    async def _compare(self, question: Question, batched: Answer[Any], size: int, deadline: float) -> None:
        (alone,) = await self._inner.score([question], deadline)
        if alone.status == "answered" and alone.value is not None and batched.value is not None:
            self.meter.seen(not same(batched.value, alone.value), size)

    async def close(self) -> None:
        """Give up comparisons under way, and close the scorer within."""
        for task in tuple(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self._inner.close()
