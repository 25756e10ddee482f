"""RateFinder: how many requests a second an endpoint admits, from its 429s alone. Pure; the time is an argument, in seconds.

    opening   twice the rate every second, until the first 429 (TCP's slow start, RFC 5681)
    open      what was admitted in the last round, and slowly more of it while the pace is what holds requests back
    closed    after a 429 nobody goes for a moment, or as long as the endpoint asks; where the next is refused as well, one
              request goes as a probe, after pauses that double

A round lasts from one reopening to the next, a minute at most, and only while the pace held requests back: so its average is what
the endpoint admits, whether it refills evenly or gives out the whole allowance at the start of each minute. With the latter the
silence after the allowance was used up is part of the round.
"""

from __future__ import annotations

import math
from collections import deque

FIRST_RATE = 20.0
_LEAST_RATE = 1 / 60
MOST_RATE = 10_000.0
_SHORT_ROUND = 5.0
"""Seconds below which a round's average says little; the rate is cut in its place, more each time that it happens again."""
_CUT, _CUT_STEP, _DEEPEST_CUT = 0.95, 0.08, 0.7
_HARDLY_A_ROUND, _GENEROUS = 1.0, 2.0
"""From a second on, a rate far above what was admitted is cut to a little more than that."""
_STEP, _MOST_STEP = 0.02, 0.25
_STEP_SECONDS = 2.0
_PATIENT_SECONDS = 15.0
"""The longer nothing was refused, the larger the steps: a limit that was raised is found within a minute or two."""
_LEAST_PAUSE, _MOST_PAUSE = 0.05, 5.0
_PART_OF_A_TURN = 0.25
_AGAIN_SECONDS = 1.0
"""A 429 so soon after reopening was not for a moment's excess: the allowance is used up, and one request asks for all."""
_MOST_HINT = 60.0
_MEMORY_SECONDS = 60.0


class RateFinder:
    """`rate` is what may be asked now, requests a second, never above `ceiling`. `told` starts at the ceiling."""

    def __init__(self, now: float, ceiling: float = MOST_RATE, *, told: bool = False) -> None:
        self.ceiling = ceiling
        self.rate = ceiling if told else min(FIRST_RATE, ceiling)
        self.closed_until = 0.0
        self.probing = False
        self.closed = False
        self._opening = not told
        self._pause = 0.0
        self._cuts = 0
        self._opened_at = -math.inf
        self._strict = self._doubtful = False
        self._stepped = self._refused_at = now
        self._round_at = now
        self._served = deque[tuple[float, int]]()

    def within(self, ceiling: float) -> None:
        """From now on another ceiling; what was found keeps its proportion to it where there was one."""
        if ceiling != self.ceiling:
            if self.ceiling < MOST_RATE and self.ceiling > 0:
                self.rate *= ceiling / self.ceiling
            elif self.ceiling == 0:
                self.rate = ceiling
            self.ceiling = ceiling
            self.rate = min(self.rate, ceiling)

    def may_go(self, now: float) -> float:
        """Seconds until a request may leave as far as 429s are concerned; 0.0 if now, infinity while a probe is under way."""
        if not self.closed:
            return 0.0
        if self.probing:
            return math.inf
        return max(0.0, self.closed_until - now)

    def sent(self, now: float) -> bool:
        """A request leaves; True if it is the probe."""
        if self.closed and self._strict:
            self.probing = True
            return True
        if self.closed:
            self.closed, self._doubtful, self._opened_at = False, True, now
        return False

    def grow(self, now: float, saturated: bool) -> None:
        """Look whether more may be asked: only while the pace is what held requests back, or idling would raise it."""
        if self.closed or self._doubtful or now - self._stepped < (1.0 if self._opening else _STEP_SECONDS):
            return
        self._stepped = now
        if not saturated:
            self._begin_round(now)  # what was admitted of less than was allowed is no limit
            return
        if self._opening:
            self.rate = min(self.ceiling, 2 * self.rate)
        else:
            calm = now - self._refused_at
            step = min(_MOST_STEP, _STEP * 2.0 ** max(0.0, (calm - _PATIENT_SECONDS) / _PATIENT_SECONDS))
            self.rate = min(self.ceiling, self.rate * (1 + step))

    def served(self, now: float, probe: bool) -> None:
        """The endpoint took a request."""
        second = math.floor(now)
        if self._served and self._served[-1][0] == second:
            self._served[-1] = (second, self._served[-1][1] + 1)
        else:
            self._served.append((second, 1))
            while self._served[0][0] < now - _MEMORY_SECONDS:
                self._served.popleft()
        if probe or (self._doubtful and now - self._opened_at >= _AGAIN_SECONDS):
            self._open(now)

    def ended(self, now: float, probe: bool) -> None:
        """A request ended in a way that says nothing about the rate."""
        if probe:
            self._open(now)

    def limited(self, now: float, probe: bool, hint: float | None, sent_at: float) -> None:
        """429 to a request that left at `sent_at`. `hint` is what the endpoint asks for, in seconds: heeded up to a minute."""
        self._refused_at = now
        if probe:
            self.probing = False
            self._pause = min(_MOST_PAUSE, 2 * self._pause)
        elif self.closed or sent_at < self._opened_at:
            return  # it was under way when another was refused
        else:
            self.closed, self._doubtful = True, False
            self._strict = now - self._opened_at < _AGAIN_SECONDS
            least = min(1.0, max(_LEAST_PAUSE, _PART_OF_A_TURN / self.rate))
            self._pause = min(_MOST_PAUSE, max(least, 2 * self._pause)) if self._strict else least
        wait = self._pause if hint is None else min(hint, _MOST_HINT)
        self.closed_until = now + wait

    def _open(self, now: float) -> None:
        """It admits requests again: take from the round that ends what it admits."""
        if self.closed:
            self._opened_at = now
            self._pause = 0.0
        self.closed = self.probing = self._opening = self._doubtful = False
        self._stepped = now
        seconds = min(now - self._round_at, _MEMORY_SECONDS)
        served = sum(count for second, count in self._served if second >= now - seconds)
        if seconds >= _SHORT_ROUND:
            self.rate = min(self.ceiling, max(served / seconds, _LEAST_RATE))
            self._begin_round(now)
            self._cuts = 0
        else:
            measured = math.inf if seconds < _HARDLY_A_ROUND else _GENEROUS * served / seconds
            cut = max(_DEEPEST_CUT, _CUT - _CUT_STEP * self._cuts)
            self.rate = max(min(self.rate * cut, measured), _LEAST_RATE)
            self._cuts += 1

    def _begin_round(self, now: float) -> None:
        self._round_at = now
        self._served.clear()
