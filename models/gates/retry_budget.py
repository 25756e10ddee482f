"""RetryBudget: retries are a share of the traffic, so that an endpoint in trouble is not sent three times as much.

As Finagle's RetryBudget: each request puts in a tenth of a retry, each second a little more for a stream that is quiet; a retry
takes one out, and only so much may be saved up. Pure; the time is an argument, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.1
FLOOR_PER_SECOND = 0.5
MOST_SAVED = 10.0


@dataclass(slots=True)
class RetryStats:
    """Counters since the start."""

    sent: int = 0
    retried: int = 0
    refused: int = 0


class RetryBudget:
    """At most `share` of the requests are sent again, and `floor` a second of a quiet stream; `most` may be saved up."""

    def __init__(self, now: float, *, share: float = SHARE, floor: float = FLOOR_PER_SECOND, most: float = MOST_SAVED) -> None:
        self.stats = RetryStats()
        self._share, self._floor, self._most = share, floor, most
        self._saved = most
        self._at = now

    def sent(self, now: float) -> None:
        """A request left that was no retry."""
        self.stats.sent += 1
        self._put(now, self._share)

    def may_retry(self, now: float) -> bool:
        """Whether a failed request may be sent again; True takes it."""
        self._put(now, 0.0)
        if self._saved < 1.0:
            self.stats.refused += 1
            return False
        self._saved -= 1.0
        self.stats.retried += 1
        return True

    def _put(self, now: float, amount: float) -> None:
        self._saved = min(self._most, self._saved + amount + max(0.0, now - self._at) * self._floor)
        self._at = max(now, self._at)
