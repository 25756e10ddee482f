"""Canary: asks a share of the records that were asked in a batch once more, alone, and lets batches shrink where answers flip.

The answer of the batch stands and is not kept waiting; the other one is for the measurement only. It goes through the same gates,
costs what a call costs, and its Call says that it was a comparison. A record is a small share of a batch, but a call of its own:
with 16 in a batch, 1 % of the records are 16 % more calls. So decisions go first: while the line has no room nothing is compared,
and while it had none lately one call in a hundred is.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from typing import Any

from models.contract import Answer, Question, Scorer
from models.quality.flips import FlipMeter, same
from models.wrapper import Wrapper

_MOST_AT_ONCE = 8
_WHOLE = 2**32
SHORT_SECONDS = 10.0
"""How long after it had no room a line is taken to be short of it: whoever asks for more then takes it from a decision."""
SELDOM = 100
"""While it is short, one comparison in so many calls: a backlog of days must not go unmeasured."""


class Canary(Wrapper):
    """A Scorer around `inner`, one model asked with one prompt, whose batches have at most `meter.size` questions.

    `share` of the records (chosen by their decision id, so that a repeat chooses the same) is asked alone too, each with as much
    time as its batch had. `spare` is asked before each: False keeps what is left, of a budget for instance, for decisions. Its
    place is inside any cache and any failover: a cached answer agrees with itself, and two models differ without a batch.
    """

    def __init__(self, inner: Scorer, meter: FlipMeter, *, share: float, spare: Callable[[Question], bool] | None = None) -> None:
        super().__init__(inner)
        self.meter = meter
        self._share = share
        self._spare = spare
        self._asking = set[asyncio.Task[None]]()
        self._short_until = -math.inf
        self._calls = 0
        self._fault: BaseException | None = None
        self._closed = False

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in several calls of like size where batches had to shrink.

        Raises what a comparison raised since: a defect is one whoever meets it.
        """
        if self._fault is not None:
            raise self._fault
        groups = _even(questions, self.meter.size)
        if len(groups) == 1:
            return await self._group(questions, deadline)
        answered = await asyncio.gather(*(self._group(group, deadline) for group in groups))
        return [answer for answers in answered for answer in answers]

    async def _group(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        seconds = deadline - asyncio.get_running_loop().time()
        self._calls += 1
        answers = await self._inner.score(questions, deadline)
        if len(questions) > 1:
            # A batch may have come back in several calls: what was missing is asked again, what was too long in halves.
            sizes = Counter(answer.call_id for answer in answers)
            for question, answer in zip(questions, answers, strict=True):
                size = sizes[answer.call_id]
                if size > 1 and answer.status == "answered" and answer.cache is None and self._chosen(question):
                    self._compare_soon(question, answer, size, seconds)
        return answers

    def _chosen(self, question: Question) -> bool:
        drawn = int.from_bytes(sha256(b"canary" + question.decision_id.encode()).digest()[:4], "big")
        return drawn < self._share * _WHOLE

    def _compare_soon(self, question: Question, batched: Answer[Any], size: int, seconds: float) -> None:
        if self._closed or len(self._asking) >= _MOST_AT_ONCE or not self._may(question):
            return
        task = asyncio.ensure_future(self._compare(question, batched, size, seconds))
        self._asking.add(task)
        task.add_done_callback(self._compared)

    def _may(self, question: Question) -> bool:
        if self._spare is not None and not self._spare(question):
            return False
        if self.room() and asyncio.get_running_loop().time() >= self._short_until:
            return True
        if self._calls < SELDOM:
            return False
        self._calls = 0
        return True

    async def _compare(self, question: Question, batched: Answer[Any], size: int, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        (alone,) = await self._inner.score([replace(question, purpose="canary")], until)
        if alone.status == "answered" and alone.value is not None and batched.value is not None and _who(alone) == _who(batched):
            self.meter.seen(not same(batched.value, alone.value), size)

    def _compared(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = fault

    def room(self, coming: int = 0) -> bool:
        """As the scorer within; it remembers being told that there is none."""
        there = super().room(coming)
        if not there:
            self._short_until = asyncio.get_running_loop().time() + SHORT_SECONDS
        return there

    async def close(self) -> None:
        """Give up comparisons under way, and close the scorer within. Safe to call twice."""
        self._closed = True
        for task in tuple(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        await super().close()


def _even(questions: Sequence[Question], most: int) -> list[Sequence[Question]]:
    """In order, in as few groups as have at most so many each, and those of like size: 16 by 9 are 8 and 8."""
    count = max(1, -(-len(questions) // most))
    ends = [len(questions) * place // count for place in range(count + 1)]
    return [questions[start:end] for start, end in pairwise(ends)]


def _who(answer: Answer[Any]) -> tuple[str | None, ...]:
    return answer.tier, answer.endpoint, answer.model_requested
