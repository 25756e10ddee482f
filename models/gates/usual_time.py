"""UsualTime: how long requests to an endpoint take at the least, as a rule, and which have too little time left. Pure.

Whoever has less time than nine in ten requests of its size took is cut off, paid for all the same, and taken for a failure of an
endpoint that is well. The measure is low on purpose: what might still be answered is let through.
"""

from __future__ import annotations

from collections import deque

QUANTILE = 0.1
LEAST_EVIDENCE = 5
"""Answers of a size before anything is known of it."""
_WINDOW = 20
TRY_SECONDS = 10.0
"""How often one that has too little time is let through: nobody else might find out that the endpoint became faster."""


class UsualTime:
    """One for an endpoint and model. Times are in seconds from leaving to the answer.

    `size` is the output that a request reserves, in tokens: it is compared with those within a factor of two of it.
    """

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = {}
        self._least: dict[int, float] = {}
        self._tries_at: dict[int, float] = {}

    def served(self, size: int, seconds: float) -> None:
        """A request was answered after so long. What failed or was cut off is not told: nobody knows how long it would take."""
        kind = size.bit_length()
        seen = self._seen.setdefault(kind, deque(maxlen=_WINDOW))
        seen.append(seconds)
        if len(seen) >= LEAST_EVIDENCE:
            self._least[kind] = sorted(seen)[int(QUANTILE * len(seen))]

    def least(self, size: int) -> float:
        """Seconds below which a request of that size is hardly ever answered; 0.0 while too few were."""
        return self._least.get(size.bit_length(), 0.0)

    def may_try(self, size: int, now: float) -> bool:
        """Whether one that has less time than that may leave to find out; True takes it, the first only after `TRY_SECONDS`."""
        at = self._tries_at.setdefault(size.bit_length(), now + TRY_SECONDS)
        if now < at:
            return False
        self._tries_at[size.bit_length()] = now + TRY_SECONDS
        return True
