"""Ladders: how often a refused request is asked differently, so that refusals of a record do not look like those of a parameter.

A request that is refused is asked without what its endpoint names, step by step: a ladder. One that ends in a refusal all the
same was in vain, and what was named was perhaps a record's own word. Each step costs a request, so such ladders are few:

    the endpoint answers what is asked in this way      one in a call of `score`; a word that a record has too is no sign
    it is not known to do so                            two levels of them, the whole and its halves, for any sign

What an endpoint answered a minute ago it may not understand any more, so that is not known for longer. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from models.chat.dialect import Dialect

KNOWN_SECONDS: Final = 60.0


@dataclass(slots=True)
class Ladder:
    """Of one request. `may_climb`: it may be asked differently; `doubtful`: also for a sign that a record has too.

    `in_vain` once it has ended in a refusal after all.
    """

    may_climb: bool
    doubtful: bool
    steps: int = 0
    in_vain: bool = False

    def step(self, other: Dialect | None) -> Dialect | None:
        """`other`, where it may be tried. Told after each refusal; None is the last one."""
        if other is not None and self.may_climb:
            self.steps += 1
            return other
        self.in_vain = self.steps > 0
        return None


class Ladders:
    """One for a scorer. Knows which ways of asking are answered."""

    def __init__(self) -> None:
        self._answered: dict[Dialect, float] = {}
        self._latest, self._latest_at = Dialect(), -math.inf

    def answered(self, dialect: Dialect, now: float) -> None:
        """Somebody was, asked in this way. `now` in any seconds that go on."""
        if dialect is not self._latest:  # hashing one for each request would cost more than all else here
            self._answered[self._latest] = self._latest_at
            self._latest = dialect
        self._latest_at = now

    def ladder(self, dialect: Dialect, in_vain: int, now: float) -> Ladder:
        """For a request that begins with `dialect`, after so many levels of ladders in vain in the same call of `score`."""
        at = max(self._answered.get(dialect, -math.inf), self._latest_at if dialect == self._latest else -math.inf)
        known = now - at < KNOWN_SECONDS
        return Ladder(may_climb=in_vain < (1 if known else 2), doubtful=not known)
