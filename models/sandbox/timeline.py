"""What the sandbox was asked, second by second: for bursts and recoveries, which no sum shows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

_SECONDS = 900
"""So many are kept."""


class Timeline:
    """Counts by name for each second that had any, the latest of them."""

    def __init__(self) -> None:
        self._seconds = deque[tuple[int, Counter[str]]](maxlen=_SECONDS)

    def add(self, name: str, second: float) -> None:
        """One more, at that second since the start. Time does not go back."""
        whole = int(second)
        if not self._seconds or self._seconds[-1][0] != whole:
            self._seconds.append((whole, Counter()))
        self._seconds[-1][1][name] += 1

    def as_json(self) -> Sequence[tuple[int, dict[str, int]]]:
        """(second, counts), in their order."""
        return [(second, dict(counts)) for second, counts in self._seconds]
