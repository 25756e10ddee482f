"""Breaker: an endpoint that fails is left alone for a while, then asked once, then more and more. Pure; time is an argument.

    closed      requests pass; failures among the last ones are counted
    open        nobody passes until a pause is over, which doubles each time (circuit breaker: M. Nygard, "Release It!")
    half open   one real request is the probe, everybody else is refused
    slow start  after the probe succeeded so many may be in flight: one, then twice as many for each round of successes

Each opening begins a new era. How a request of an earlier era ends says nothing of how the endpoint is now: it changes nothing.

A 429 is no failure: it says that the endpoint is there (models/gates/admission.py answers it). Nor is a request that was
refused for what is in it. A key or a path that is refused, or a quota that is used up, opens at once: no other request would fare
better. A 403 without a reason may be about one record's text, as with a web firewall. About several records it is a failure
only with the third request about some of them that ends so, the whole and both its halves, while nobody else is served: one
record is in one half. About a record alone it is one the first time.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from models.gates.gate import Ended

State = Literal["closed", "open", "half open", "slow start"]
WINDOW, WINDOW_SECONDS = 20, 30.0
FAILURE_SHARE = 0.5
IN_A_ROW = 5
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 2.0
"""An outage is noticed to be over within the longest pause; what it costs is one refused record in so many seconds."""
HOPELESS_PAUSE = 30.0
"""The longest pause where a person has to do something first: key, path or quota."""
FULL = 64
"""In flight during slow start past which there is nothing more to start slowly."""
_HOPELESS = (401, 403, 404)
_SUSPECTS, _WHOLE_AND_HALVES = 64, 3


@dataclass(slots=True)
class BreakerStats:
    """Counters since the start; `why` is the last failure that opened it, for a person."""

    opened: int = 0
    refused: int = 0
    probes: int = 0
    why: str = ""


@dataclass(slots=True)
class _Suspects:
    """Records of a request that was forbidden without a reason: how often so far, while `served` requests had been served."""

    ids: frozenset[str]
    served: int
    times: int = 0


class Breaker:
    """One for an endpoint and model. `enter` before a request, `left` after it. `chance` in [0, 1) spreads the pauses.

    `in_flight` are those of the present era.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self.state: State = "closed"
        self.stats = BreakerStats()
        self.until = 0.0
        self._chance = chance
        self._seen = deque[tuple[float, bool]](maxlen=WINDOW)
        self._row = 0
        self._suspects = deque[_Suspects](maxlen=_SUSPECTS)
        self._served = 0
        self._pause = 0.0
        self._era = 1
        self._allowed = self.in_flight = self._succeeded = 0

    def available(self, now: float) -> bool:
        """Whether a request would pass now."""
        return self.places(now) > 0

    def places(self, now: float) -> float:
        """How many requests would pass now; infinity while it is closed, none before the pause of an open one is over."""
        if self.state == "closed":
            return math.inf
        if self.state == "open":
            return 1 if now >= self.until else 0
        return 0 if self.state == "half open" else max(0, self._allowed - self.in_flight)

    def enter(self, now: float) -> int | None:
        """A request wants to leave; None refuses it. Else the era in which it does, which `left` wants to know: 1 or more."""
        if not self.available(now):
            self.stats.refused += 1
            return None
        if self.state == "open":
            self.state = "half open"
            self.stats.probes += 1
        self.in_flight += 1
        return self._era

    def left(self, ended: Ended, now: float, era: int) -> None:
        """A request that passed in this era has ended. Once for each."""
        if era != self._era:
            return  # it was under way when others failed
        self.in_flight -= 1
        failed = self._forbids_all(ended.about) if ended.about else _failure(ended)
        if failed is None:
            if self.state == "half open":
                # It did not leave, or says nothing: the next one is the probe, at once.
                self.state, self.until = "open", now
        elif failed:
            self._failed(ended, now)
        else:
            self._worked(now)

    def _forbids_all(self, about: frozenset[str]) -> bool | None:
        """Whether a request about these that was forbidden without a reason is a failure; None where one of them may be why."""
        found = next((one for one in self._suspects if one.ids & about), None)
        if found is None:
            self._suspects.append(found := _Suspects(about, self._served))
        elif found.served != self._served:
            found.served, found.times = self._served, 0
            return None
        found.times += 1
        again = found.times == 1 if len(found.ids) == 1 else found.times % _WHOLE_AND_HALVES == 0
        return True if again else None

    def _worked(self, now: float) -> None:
        self._row = 0
        self._served += 1
        self._seen.append((now, False))
        if self.state == "half open":
            self.state, self._allowed, self._succeeded = "slow start", 1, 0
            self._seen.clear()
        if self.state == "slow start":
            self._succeeded += 1
            if self._succeeded >= self._allowed:
                self._allowed, self._succeeded = 2 * self._allowed, 0
            if self._allowed >= FULL:
                self.state, self._pause = "closed", 0.0

    def _failed(self, ended: Ended, now: float) -> None:
        self._row += 1
        self._seen.append((now, True))
        recent = [bad for at, bad in self._seen if at >= now - WINDOW_SECONDS]
        often = len(recent) == WINDOW and sum(recent) >= FAILURE_SHARE * WINDOW
        at_once = self.state != "closed" or _hopeless(ended)
        if at_once or often or self._row >= IN_A_ROW:
            self._open(ended, now)

    def _open(self, ended: Ended, now: float) -> None:
        longest = HOPELESS_PAUSE if _hopeless(ended) else LONGEST_PAUSE
        self._pause = min(longest, 2 * self._pause) or FIRST_PAUSE
        self.state, self.until = "open", now + self._pause * (0.75 + 0.5 * self._chance())
        self._era += 1
        self._row = self.in_flight = 0
        self._seen.clear()
        self.stats.opened += 1
        self.stats.why = f"{ended.kind}{f' ({ended.status})' if ended.status else ''}"


def _hopeless(ended: Ended) -> bool:
    """Whether a person has to do something first; a 403 without a reason may be one record's doing."""
    return ended.kind == "exhausted" or (ended.status in _HOPELESS and not ended.about)


def _failure(ended: Ended) -> bool | None:
    """Whether the endpoint failed; None where the end says nothing about it."""
    if ended.kind in ("unavailable", "timeout", "protocol", "exhausted"):
        return True
    if ended.kind == "served":
        return False
    return True if ended.kind == "rejected" and ended.status in _HOPELESS else None
