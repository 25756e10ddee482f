"""How many requests in flight an endpoint bears: fewer where an output token takes longer than it did, slowly more where not.

The gradient of Netflix's concurrency-limits (Gradient2Limit): the long mean of the latency over the present one, with some
tolerance, scales the limit; a share for queueing lets it grow. Latency is taken for each output token, or a batch of long answers
would look like a slow endpoint. Pure.
"""

from __future__ import annotations

import math

_TOLERANCE = 1.5
_SMOOTHING = 0.2
_LONG, _FIRST = 600, 10
_RELUCTANCE = 0.1
_LEAST_GRADIENT = 0.5
_DRIFT = 0.95


class Concurrency:
    """`limit` requests in flight, between 1 and `most`; it starts at `most`, since a limit nobody needs only slows the start."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(most)
        self._long = 0.0
        self._seen = 0

    @property
    def limit(self) -> int:
        """A whole number, 1 at least."""
        return max(1, int(self._limit))

    def served(self, seconds: float, output_tokens: int, in_flight: int) -> None:
        """A request took so long for so many tokens, with so many in flight. One of an idle endpoint makes nothing grow."""
        present = seconds / max(1, output_tokens)
        if present <= 0:
            return
        self._seen = min(_LONG, self._seen + 1)
        # What is slow hardly enters the mean that it is held against, or an endpoint under load would soon count as usual.
        usual = self._seen <= _FIRST or present <= _TOLERANCE * self._long
        self._long += (present - self._long) * (1 / self._seen if usual else _RELUCTANCE / _LONG)
        if self._long > 2 * present:
            self._long *= _DRIFT  # it has been slow for long and is quick again: the long mean would take too long to notice
        if in_flight < self._limit / 2:
            return
        gradient = max(_LEAST_GRADIENT, min(1.0, _TOLERANCE * self._long / present))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._limit = max(1.0, min(float(self.most), self._limit + _SMOOTHING * (wanted - self._limit)))
