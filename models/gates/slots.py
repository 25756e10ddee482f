"""Slots: the simplest gate: so many requests in flight, and after a 429 nobody goes until the endpoint would have them again.

It stands where no admission does (`headrace agents try`, tests): it finds no limit out and paces nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from models.gates.gate import Asking, Ended, Leave

_FIRST, _LONGEST = 0.2, 5.0


class Slots:
    """At most `most` requests at once. A 429 closes it for `retry_after` seconds, or for a pause that doubles with each.

    `chance` in [0, 1) adds up to as much again as the first pause, so that those who were limited together come back apart.
    """

    def __init__(self, most: int, chance: Callable[[], float]) -> None:
        self._places = asyncio.Semaphore(most)
        self._chance = chance
        self._closed_until = 0.0
        self._limited = 0

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Wait for a place. Raises TimeoutError at the deadline."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(deadline):
            await self._places.acquire()
            try:
                while (closed := self._closed_until - loop.time()) > 0:  # noqa: ASYNC110  # it ends at a time, not by an event
                    await asyncio.sleep(closed + self._chance() * _FIRST)
            except BaseException:
                self._places.release()
                raise
        return self._leave

    def _leave(self, ended: Ended) -> None:
        self._places.release()
        if ended.kind == "served":
            self._limited = 0
        elif ended.kind == "limited":
            self._limited += 1
            own, asked = min(_LONGEST, _FIRST * 2.0**self._limited), ended.retry_after
            pause = own if asked is None or asked <= 0 else max(_FIRST, asked)
            self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + pause)
