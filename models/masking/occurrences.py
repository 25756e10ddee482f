"""Where any of many values stands in a text, in time that grows with the text and hardly with the number of values. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from typing import Final

Span = tuple[int, int]
Fits = Callable[[str, int, int], bool]

_LONG: Final = 512
"""A value with more characters is searched for by itself: few of them fit into a record."""


class Occurrences:
    """Finds `values`, none of them empty.

    Values are sorted. All values that a text begins with begin each other, and the last one that sorts not after the text begins
    with them too: so one bisection finds the longest, or one that the longest begins (`_shorter` leads there).
    """

    def __init__(self, values: Collection[str]) -> None:
        self._long = [value for value in values if len(value) > _LONG]
        self._sorted = sorted({value for value in values if len(value) <= _LONG})
        self._longest = max(map(len, self._sorted), default=0)
        self._shorter: dict[str, str | None] = {}
        begun: list[str] = []
        for value in self._sorted:
            while begun and not value.startswith(begun[-1]):
                begun.pop()
            self._shorter[value] = begun[-1] if begun else None
            begun.append(value)
        first = "".join(re.escape(sign) for sign in sorted({value[0] for value in self._sorted}))
        self._first = re.compile(f"[{first}]") if first else None

    def spans(self, text: str, fits: Fits | None = None) -> Iterator[Span]:
        """For each place the longest value there (that `fits` accepts), overlapping or not; long values come last."""
        if self._first is not None:
            for match in self._first.finditer(text):
                start = match.start()
                end = self._end(text, start, fits)
                if end is not None:
                    yield start, end
        for value in self._long:
            at = text.find(value)
            while at >= 0:
                if fits is None or fits(text, at, at + len(value)):
                    yield at, at + len(value)
                at = text.find(value, at + len(value))

    def _end(self, text: str, start: int, fits: Fits | None) -> int | None:
        piece = text[start : start + self._longest]
        place = bisect_right(self._sorted, piece)
        value: str | None = self._sorted[place - 1] if place else None
        while value is not None:
            if piece.startswith(value) and (fits is None or fits(text, start, start + len(value))):
                return start + len(value)
            value = self._shorter[value]
        return None
