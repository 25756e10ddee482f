"""Hedge: when a request is slow enough that a second one may leave for the same records, and whether that is paid for. Pure.

After "The Tail at Scale" (Dean and Barroso, CACM 2013): a second request past the 95th percentile costs little and cuts the tail,
where slowness is bad luck of one request. Where it is an overload it makes that worse, so hedges are few by construction and
their caller leaves them out while limits shrink (models/chat/hedging.py).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

QUANTILE = 0.95
LEAST_EVIDENCE = 20
"""Requests of a size that were timed before any of that size is hedged."""
_WINDOW = 200
_MOST_SAVED = 10
"""Hedges of the present size that may be saved up; a quiet night does not pay for a bad morning."""


@dataclass(slots=True)
class HedgeStats:
    """Since the start: hedges that left, those that answered first, tokens reserved by hedges and by the requests they are of."""

    hedged: int = 0
    won: int = 0
    hedge_tokens: int = 0
    tokens: int = 0


class Hedge:
    """One for each agent and model. Hedges reserve at most `share` of the tokens that other requests have reserved so far.

    `size` is the output that a request reserves, in tokens: how long it takes goes by that, so requests are compared with those
    within a factor of two of it. Times are in seconds from leaving to the end.
    """

    def __init__(self, *, share: float = 0.05) -> None:
        self.stats = HedgeStats()
        self._share = share
        self._saved = 0.0
        self._times: dict[int, _Times] = {}

    def sent(self, tokens: int) -> None:
        """A request that is no hedge has left, with so many tokens reserved."""
        self.stats.tokens += tokens
        self._saved = max(self._saved, min(self._saved + self._share * tokens, float(_MOST_SAVED * tokens)))

    def delay(self, size: int) -> float | None:
        """Seconds after leaving at which a request of that size is slow; None while too few were timed."""
        times = self._times.get(size.bit_length())
        return times.at(QUANTILE) if times is not None and len(times) >= LEAST_EVIDENCE else None

    def usual(self, size: int) -> float:
        """Seconds that half of the requests of that size take at most; 0.0 while none was timed."""
        times = self._times.get(size.bit_length())
        return times.at(0.5) if times is not None else 0.0

    def take(self, tokens: int) -> bool:
        """Whether a hedge with so many tokens is paid for; it then is, until `give_back`."""
        if self._saved < tokens:
            return False
        self._saved -= tokens
        return True

    def left(self, tokens: int) -> None:
        """A hedge that was paid for has left."""
        self.stats.hedged += 1
        self.stats.hedge_tokens += tokens

    def give_back(self, tokens: int) -> None:
        """A hedge that was paid for did not leave."""
        self._saved += tokens

    def ended(self, size: int, seconds: float) -> None:
        """A request was answered after so long, or was given up after so long: it would have taken longer still.

        One that is given up past the quantile stays past it, so hedging does not make its own measure shorter.
        """
        self._times.setdefault(size.bit_length(), _Times()).add(seconds)


class _Times:
    """The last so many, in order of their coming and by length."""

    def __init__(self) -> None:
        self._came = deque[float]()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._came)

    def add(self, seconds: float) -> None:
        if len(self._came) == _WINDOW:
            del self._sorted[bisect_left(self._sorted, self._came.popleft())]
        self._came.append(seconds)
        insort(self._sorted, seconds)

    def at(self, quantile: float) -> float:
        return self._sorted[min(len(self._sorted) - 1, int(quantile * len(self._sorted)))]
