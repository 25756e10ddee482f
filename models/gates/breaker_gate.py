"""BreakerGate: a breaker as a gate: nobody waits for an endpoint that fails, the answer is that it does.

One that answers again, and is only started slowly, may be waited for.

A request that was cut off after less time than such requests take (models/gates/usual_time.py) is no failure of the endpoint.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from models.gates.breaker import Breaker, BreakerStats
from models.gates.gate import Asking, Ended, Leave, Refused
from models.gates.usual_time import UsualTime


class BreakerGate:
    """A models.gates.gate.Gate. `where` names the endpoint for a person.

    `patient` says whether a request waits for its place while the endpoint comes back, since nobody else would answer it: the
    parts of a batch, or one that another agent came before. Otherwise such a request is refused at once. To be used in one
    event loop.
    """

    def __init__(self, where: str, breaker: Breaker | None = None, *, patient: Callable[[], bool] = lambda: False) -> None:
        self.breaker = breaker or Breaker()
        self.patient = patient
        self._queue: list[asyncio.Future[None]] = []
        self._told: Callable[[], None] | None = None
        self._where = where
        self._usual = UsualTime()

    @property
    def stats(self) -> BreakerStats:
        """Counters since the start."""
        return self.breaker.stats

    def available(self) -> bool:
        """Whether a request would pass now."""
        return self.breaker.available(asyncio.get_running_loop().time())

    def places(self) -> float:
        """How many requests may come now: those that would pass, and any number while it is open, to be answered at once."""
        now = asyncio.get_running_loop().time()
        return math.inf if self.open() and now < self.breaker.until else self.breaker.places(now)

    def open(self) -> bool:
        """Whether the endpoint is given time, and nobody tries it."""
        return self.breaker.state == "open"

    def out(self) -> bool:
        """Whether the endpoint failed and has not answered since."""
        return self.breaker.state in ("open", "half open")

    def trying(self) -> bool:
        """Whether all that the endpoint is trusted with for now is under way: soon it is known whether more is."""
        return self.breaker.state in ("half open", "slow start") and not self.available()

    def on_left(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever a request has left, so that its place is free or the state another. One listener."""
        self._told = tell

    def closed(self) -> bool:
        """Whether the endpoint is well: nothing failed lately, nor is it only coming back."""
        return self.breaker.state == "closed"

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Pass at once, or during slow start when there is a place. Raises Refused while the endpoint is given time."""
        loop = asyncio.get_running_loop()
        if self._full() and self.patient():
            await self._wait(deadline)
        era = self.breaker.enter(loop.time())
        if era is None:
            pause = self.breaker.until - loop.time()
            again = f"it is asked again in {pause:.0f} s" if pause >= 0.5 else "others are trying it"
            raise Refused("unavailable", f"{self._where} failed ({self.breaker.stats.why}); {again}")
        return partial(self._leave, era, asking.agent, asking.output_tokens)

    def _full(self) -> bool:
        return self.breaker.state in ("half open", "slow start") and not self.available()

    async def _wait(self, deadline: float) -> None:
        """Until there is a place, the endpoint failed again or the deadline is here."""
        try:
            async with asyncio.timeout_at(deadline):
                while self._full():
                    turn = asyncio.get_running_loop().create_future()
                    self._queue.append(turn)
                    await turn
        except TimeoutError:
            return

    def _leave(self, era: int, agent: str, size: int, ended: Ended) -> None:
        if ended.kind == "served":
            self._usual.served(agent, size, ended.seconds)
        elif ended.kind == "timeout" and ended.seconds < self._usual.least(agent, size):
            ended = replace(ended, kind="cancelled")
        self.breaker.left(ended, asyncio.get_running_loop().time(), era)
        queue, self._queue = self._queue, []  # each looks again, in this order; who finds no place waits again
        for turn in queue:
            if not turn.done():
                turn.set_result(None)
        if self._told is not None:
            self._told()
