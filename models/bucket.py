"""Bucket: an allowance that refills evenly, as most providers enforce theirs. Pure; the time is an argument, in seconds."""

from __future__ import annotations

import math


class Bucket:
    """`rate` a second, up to `burst` of it saved. A cost larger than the burst goes through when it is full, into debt."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst = rate, burst
        self._level = burst
        self._at = now

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `cost` may be taken; 0.0 if at once, infinity where nothing refills."""
        if self.rate <= 0:
            return math.inf
        lacking = min(cost, self.burst) - self._refilled(now)
        return 0.0 if lacking <= 1e-9 else lacking / self.rate

    def take(self, cost: float, now: float) -> None:
        """Take it, if need be into debt; a negative cost gives back, up to the burst."""
        self._level = min(self.burst, self._refilled(now) - cost)

    def change(self, rate: float, burst: float, now: float) -> None:
        """From now on another allowance; what was saved or owed stays, up to the new burst."""
        self._level = min(burst, self._refilled(now))
        self.rate, self.burst = rate, burst

    def _refilled(self, now: float) -> float:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
            self._at = now
        return self._level
