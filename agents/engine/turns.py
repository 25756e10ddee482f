"""Turns: work that takes long for an event loop, one piece after the other with rounds of the loop between them.

64 calls that end together would otherwise have all their answers worked through in one round, and the place of the last would
stay empty meanwhile. Between two turns everything that is ready runs first: the next calls leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class Turns:
    """`async with turns: ...` waits for its turn, first come first served; a turn begins in a later round of the loop."""

    def __init__(self) -> None:
        self._queue: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._queue.append(turn)
        if len(self._queue) == 1:
            loop.call_soon(_begin, turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave(self._queue[0])

    def _leave(self, turn: asyncio.Future[None]) -> None:
        """Give the turn up, had or only waited for; the next one's begins where it was had."""
        had = self._queue[0] is turn
        self._queue.remove(turn)
        if had and self._queue:
            asyncio.get_running_loop().call_soon(_begin, self._queue[0])


def _begin(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
