"""ConcurrencyLimit: how many requests may be in flight: less when answers slow down or after a 429, more while it holds back.

The gradient is that of Netflix's concurrency-limits (Gradient2Limit), after TCP Vegas: the least seen over the recent. The time
is counted per output token, since an answer's length says nothing of the endpoint's load, and both are moving averages, since the
least of single answers would be the luckiest one. Additive increase, multiplicative decrease: Chiu and Jain, 1989.
"""

from __future__ import annotations

import math

_RECENT = 0.1
"""Weight of an answer in the short average: about the last twenty."""
_DRIFT = 0.002
"""The least moves towards the recent by this part an answer: an endpoint that became slower for good is accepted in the end."""
_TOLERANCE = 2.0
"""So many times the least before anything shrinks: batching endpoints are slower per token under a load they take well."""
_LIMITED_CUT, _LEAST_CUT = 0.9, 0.5
_FIRST = 16
_SETTLED = 20
"""Answers before the average means anything."""


class ConcurrencyLimit:
    """`limit` is between 1 and `most`; `shrank_at` is when it last had reason to shrink. Pure; time is an argument."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(min(_FIRST, most))
        self._starting = True
        self._short = self._least = 0.0
        self._answers = self._round = 0
        self._full = False
        self.shrank_at = -math.inf

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        return int(self._limit)

    def held_back(self) -> None:
        """A request waits for nothing but a place: without that the limit does not grow."""
        self._full = True

    def served(self, seconds: float, output_tokens: int, now: float) -> None:
        """An answer of so many tokens took so long."""
        each = seconds / max(1, output_tokens)
        self._answers += 1
        if self._answers == 1:
            self._short = self._least = each
        self._short += max(_RECENT, 1 / self._answers) * (each - self._short)
        if self._answers <= _SETTLED:
            self._least = self._short
        else:
            self._least = min(self._short, self._least + _DRIFT * (self._short - self._least))
        self._round += 1
        if self._round >= self._limit:
            self._adapt(now)

    def limited(self, now: float) -> None:
        """A 429 that was not just another of the same moment. A limit that held nothing back was not what was too much."""
        if not self._full:
            return
        self._starting = False
        self._limit, self.shrank_at = max(1.0, self._limit * _LIMITED_CUT), now
        self._round, self._full = 0, False

    def _adapt(self, now: float) -> None:
        """Once a round of answers, so about once a round trip."""
        gradient = 1.0 if self._short <= 0 else max(_LEAST_CUT, min(1.0, _TOLERANCE * self._least / self._short))
        if gradient < 1.0:
            self._starting = False
            self._limit, self.shrank_at = max(1.0, self._limit * gradient), now
        elif self._full:
            self._limit = min(float(self.most), self._limit * 2 if self._starting else self._limit + max(1.0, 0.1 * self._limit))
        self._round, self._full = 0, False
