"""UsualTime: how long requests to an endpoint take at the least, as a rule, and which have too little time left. Pure.

Whoever has less time than nine in ten requests of its size took is cut off, paid for all the same, and taken for a failure of an
endpoint that is well. The measure is low on purpose: what might still be answered is let through.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

QUANTILE = 0.1
LEAST_EVIDENCE = 5
"""Answers of a kind before anything is known of it."""
_WINDOW = 20
_MOST_KINDS = 1024
"""Kinds of request that are remembered; past them the one that was answered longest ago is forgotten."""
TRY_SECONDS = 10.0
"""How often one that has too little time is let through: nobody else might find out that the endpoint became faster."""

_Kind = tuple[str, int]


@dataclass(slots=True)
class _Known:
    """Of one kind of request: the last times, as they came and sorted, what follows, and when one may be let through to see."""

    seen: deque[float] = field(default_factory=deque)
    rising: list[float] = field(default_factory=list)
    least: float = 0.0
    try_at: float | None = None


class UsualTime:
    """One for an endpoint and model. Times are in seconds from leaving to the answer.

    `size` is the output that a request of `agent` reserves, in tokens: it is compared with those of the same agent within a
    factor of two of it. What one agent asks for may take ten times as long as what another does.
    """

    def __init__(self) -> None:
        self._known: dict[_Kind, _Known] = {}

    def served(self, agent: str, size: int, seconds: float) -> None:
        """A request was answered after so long. What failed or was cut off is not told: nobody knows how long it would take."""
        kind = _kind(agent, size)
        known = self._known.pop(kind) if kind in self._known else _Known()
        self._known[kind] = known  # at the end: the last one told of is the last to be forgotten
        if len(self._known) > _MOST_KINDS:
            del self._known[next(iter(self._known))]
        if len(known.seen) == _WINDOW:
            del known.rising[bisect_left(known.rising, known.seen.popleft())]
        known.seen.append(seconds)
        insort(known.rising, seconds)
        if len(known.rising) >= LEAST_EVIDENCE:
            known.least = known.rising[int(QUANTILE * len(known.rising))]

    def least(self, agent: str, size: int) -> float:
        """Seconds below which such a request is hardly ever answered; 0.0 while too few were."""
        known = self._known.get(_kind(agent, size))
        return 0.0 if known is None else known.least

    def may_try(self, agent: str, size: int, now: float) -> bool:
        """Whether one that has less time than that may leave to find out; True takes it, the first only after `TRY_SECONDS`."""
        known = self._known.get(_kind(agent, size))
        if known is None:
            return True
        if known.try_at is None:
            known.try_at = now + TRY_SECONDS
        if now < known.try_at:
            return False
        known.try_at = now + TRY_SECONDS
        return True


def _kind(agent: str, size: int) -> _Kind:
    return agent, size.bit_length()
