"""BreakerGate: a breaker as a gate: nobody waits for an endpoint that fails, the answer is that it does.

A request that was cut off after less time than such requests take (models/gates/usual_time.py) is no failure of the endpoint.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from models.gates.breaker import Breaker, BreakerStats
from models.gates.gate import Asking, Ended, Leave, Refused
from models.gates.usual_time import UsualTime


class BreakerGate:
    """A models.gates.gate.Gate. `where` names the endpoint for a person."""

    def __init__(self, where: str, breaker: Breaker | None = None) -> None:
        self.breaker = breaker or Breaker()
        self._where = where
        self._usual = UsualTime()

    @property
    def stats(self) -> BreakerStats:
        """Counters since the start."""
        return self.breaker.stats

    def available(self) -> bool:
        """Whether a request would pass now."""
        return self.breaker.available(asyncio.get_running_loop().time())

    def closed(self) -> bool:
        """Whether the endpoint is well: nothing failed lately, nor is it only coming back."""
        return self.breaker.state == "closed"

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Pass at once. Raises Refused while the endpoint is given time."""
        now = asyncio.get_running_loop().time()
        era = self.breaker.enter(now)
        if era is None:
            pause = self.breaker.until - now
            again = f"it is asked again in {pause:.0f} s" if pause >= 0.5 else "others are trying it"
            raise Refused("unavailable", f"{self._where} failed ({self.breaker.stats.why}); {again}")
        return partial(self._leave, era, asking.agent, asking.output_tokens)

    def _leave(self, era: int, agent: str, size: int, ended: Ended) -> None:
        if ended.kind == "served":
            self._usual.served(agent, size, ended.seconds)
        elif ended.kind == "timeout" and ended.seconds < self._usual.least(agent, size):
            ended = replace(ended, kind="cancelled")
        self.breaker.left(ended, asyncio.get_running_loop().time(), era)
