"""Refusals: when a refused batch is no longer asked about in halves, since its endpoint refuses whatever it is asked.

A content filter that refuses everything would else cost 2 n - 1 requests for each batch of n. Pure; time is an argument.
"""

from __future__ import annotations

import math

IN_A_ROW = 8
"""Records that were refused, each alone, and nobody answered meanwhile: then it is hardly the records."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds until the next batch is halved, to see whether its halves are refused too; they double."""


class Refusals:
    """One for a scorer. Any answer makes all as it was."""

    def __init__(self) -> None:
        self._row = 0
        self._pause = 0.0
        self._until = -math.inf

    def answered(self) -> None:
        """Somebody was."""
        self._row, self._pause, self._until = 0, 0.0, -math.inf

    def refused_alone(self) -> None:
        """A record was, with no neighbour that could be the cause."""
        self._row += 1

    def may_halve(self, now: float) -> bool:
        """Whether a refused batch is to be asked about in halves; while nobody is answered, one batch in each pause."""
        if self._row < IN_A_ROW:
            return True
        if now < self._until:
            return False
        self._pause = min(LONGEST_PAUSE, 2 * self._pause) or FIRST_PAUSE
        self._until = now + self._pause
        return True
