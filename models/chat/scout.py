"""Scout: the first request to an endpoint goes ahead, so that what it refuses is found out once and not by everybody at once.

A refusal comes quickly, before any work. So the others wait until the first one is answered, or has not been refused for a
second: then it is being worked on, and they may ask in the same way. Later nobody waits.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

from models.chat.dialect import Dialect, joined

PATIENCE = 1.0
"""Seconds without a refusal after which an endpoint is taken to accept what it was asked."""
LONGEST = 3.0
"""Seconds that a request waits here at most, whoever goes ahead and however often."""


class Scout:
    """One for a line. `dialect` is how the endpoint is asked, as far as it is known; `settled` once it has answered so."""

    def __init__(self) -> None:
        self.dialect = Dialect()
        self.settled = False
        self._ahead: asyncio.Event | None = None
        self._tried = self.dialect
        self._asked_at = 0.0

    def turn(self, deadline: float) -> Turn:
        """`async with scout.turn(deadline) as turn`: waits, before the deadline (loop time), while another is ahead."""
        return Turn(self, deadline)


class Turn:
    """One question's way past the scout. `dialect` is how it is to be asked at first."""

    def __init__(self, scout: Scout, deadline: float) -> None:
        self._scout = scout
        self._deadline = deadline
        self._mine: asyncio.Event | None = None
        self.dialect = scout.dialect

    async def __aenter__(self) -> Turn:
        scout = self._scout
        if not scout.settled:
            await self._wait()
        self.dialect = scout.dialect if scout.settled else scout._tried
        return self

    async def _wait(self) -> None:
        scout, now = self._scout, asyncio.get_running_loop().time
        latest = min(self._deadline, now() + LONGEST)
        while not scout.settled and (ahead := scout._ahead) is not None:
            left = min(latest, scout._asked_at + PATIENCE) - now()
            if left <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await ahead.wait()
        if not scout.settled:
            scout._ahead = self._mine = asyncio.Event()
            scout._asked_at = now()

    def asks(self, dialect: Dialect) -> None:
        """It is about to ask in this way."""
        if self._mine is not None and not self._scout.settled:
            self._scout._tried, self._scout._asked_at = dialect, asyncio.get_running_loop().time()

    def refused(self, dialect: Dialect) -> Dialect | None:
        """What others have found out meanwhile, added to this refused way; None if that adds nothing."""
        other = joined(dialect, self._scout.dialect)
        return other if other != dialect else None

    def answered(self, dialect: Dialect) -> None:
        """The endpoint answered what it was asked in this way: so it is asked from now on."""
        scout = self._scout
        scout.dialect, scout.settled = joined(scout.dialect, dialect), True
        if scout._ahead is not None:
            scout._ahead.set()
        self._release()

    def _release(self) -> None:
        if self._mine is not None:
            self._mine.set()
            if self._scout._ahead is self._mine:
                self._scout._ahead, self._scout._tried = None, self._scout.dialect
            self._mine = None

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()
