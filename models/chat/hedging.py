"""Hedging: the second request for a slow one, and which of the two is taken. The other is cut off, and audited like any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from models.chat.call_draft import CallDraft
from models.chat.hedge import Hedge
from models.contract import Question
from models.gates.gate import Refused
from schemas.errors import ModelError

R = TypeVar("R")
QUIET_SECONDS = 60.0
"""How long after a 429, or after a limit had to shrink, nothing is hedged: an account's limits are those of a minute."""
_ENDS = (Refused, TimeoutError, ModelError)


class Hedging:
    """For one agent and model: given to its ChatScorer. `steady` says whether the endpoint is well: its breaker is closed.

    `spare` is asked about each question of a request that is slow: False for one of them keeps what is left, of a budget for
    instance, for what has not been asked at all.
    """

    def __init__(
        self, hedge: Hedge | None = None, *, steady: Callable[[], bool] = lambda: True,
        spare: Callable[[Question], bool] = lambda question: True,
    ) -> None:  # fmt: skip
        self.hedge = hedge or Hedge()
        self._steady = steady
        self._spare = spare

    def spares(self, questions: Sequence[Question]) -> bool:
        """Whether all of them may be asked about once more."""
        return all(self._spare(question) for question in questions)

    async def race(
        self, send: Callable[[CallDraft], Coroutine[Any, Any, R]], draft: CallDraft, size: int, deadline: float,
        calm: Callable[[], bool],
    ) -> tuple[R, CallDraft]:  # fmt: skip
        """What `send(draft)` brings, or a second request of the same kind where that brings something first, and whose it is.

        One that fails leaves it to the other. Raises what the first raised where neither brings anything. `size` is the output
        that is reserved, `calm` whether limits and budget have room for more than is needed.
        """
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        draft.on_leave = partial(left.set_result, None)
        sent = {(first := asyncio.ensure_future(send(draft))): draft}
        try:
            await asyncio.wait((first, left), return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                self.hedge.sent(draft.tokens)
                if await self._slow(first, draft, size) and self._may(draft.tokens, size, deadline, calm):
                    second = draft.hedge()
                    second.on_leave = partial(self.hedge.left, draft.tokens)
                    sent[asyncio.ensure_future(send(second))] = second
            taken = await _taken(sent) or first
            self._learn(first, taken, sent, size)
            return taken.result(), sent[taken]
        finally:
            await self._cut_off(sent)

    async def _slow(self, first: asyncio.Task[R], draft: CallDraft, size: int) -> bool:
        """Wait until the request has ended, or is slow."""
        delay = self.hedge.delay(size)
        wait = None if delay is None else max(0.0, draft.left_at + delay - asyncio.get_running_loop().time())
        await asyncio.wait((first,), timeout=wait)
        return not first.done()

    def _may(self, tokens: int, size: int, deadline: float, calm: Callable[[], bool]) -> bool:
        in_time = asyncio.get_running_loop().time() + self.hedge.usual(size) < deadline
        return in_time and self._steady() and calm() and self.hedge.take(tokens)

    def _learn(
        self, first: asyncio.Task[R], taken: asyncio.Task[R], sent: Mapping[asyncio.Task[R], CallDraft], size: int
    ) -> None:
        """How long they took; the first counts as far as it came, where it was late or its hedge was quicker."""
        now = asyncio.get_running_loop().time()
        late = not first.done() or isinstance(first.exception(), TimeoutError)
        if sent[first].sent_ms is not None and (late or (taken is first and first.exception() is None)):
            self.hedge.ended(size, now - sent[first].left_at)
        if taken is not first:
            self.hedge.stats.won += 1
            self.hedge.ended(size, now - sent[taken].left_at)
        for task, draft in sent.items():
            if not task.done():
                draft.error = f"call {sent[taken].call_id} was answered first"

    async def _cut_off(self, sent: Mapping[asyncio.Task[R], CallDraft]) -> None:
        """Nobody waits for those that still run. Returns once their Calls are made."""
        for task in sent:
            task.cancel()
        await asyncio.gather(*sent, return_exceptions=True)
        for draft in sent.values():
            if draft.hedge_of is not None and draft.sent_ms is None:
                first = next(iter(sent.values()))
                self.hedge.give_back(first.tokens)


async def _taken(sent: Mapping[asyncio.Task[R], CallDraft]) -> asyncio.Task[R] | None:
    """The first that brings something, None where none does. Raises what is no end of a request but a defect."""
    pending = set(sent)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in sent:
            if task in done:
                fault = task.exception()
                if fault is None:
                    return task
                if not isinstance(fault, _ENDS):
                    raise fault
    return None
