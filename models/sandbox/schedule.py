"""What the sandbox does when: limits that change and outages, by the seconds since it started. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from schemas.errors import ConfigError

OutageKind = Literal["503", "refused", "hang"]
"""Answered with 503; connections refused and those there are reset; accepted and not answered until it is over, then reset."""
_KINDS: tuple[OutageKind, ...] = get_args(OutageKind)
_CHANGE = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", re.ASCII)
_OUTAGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)?(?::(\w+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Outage:
    """From second `begin` until before second `end`, which may be infinite."""

    begin: float
    end: float
    kind: OutageKind = "503"


@dataclass(frozen=True, slots=True)
class Schedule:
    """`changes` are (second, so many times the limits that the sandbox started with), in order of time. Raises ConfigError."""

    changes: Sequence[tuple[float, float]] = ()
    outages: Sequence[Outage] = ()

    def __post_init__(self) -> None:
        times = [at for at, _ in self.changes]
        if times != sorted(times) or any(factor <= 0 for _, factor in self.changes):
            raise ConfigError("reading the changes of the sandbox's limits: they come in order of time, with factors above 0")
        for outage in self.outages:
            if outage.kind not in _KINDS or not 0 <= outage.begin < outage.end:
                raise ConfigError(f"reading {outage}: it ends after it began, and is one of {', '.join(_KINDS)}")

    def outage(self, second: float) -> Outage | None:
        """What is out then."""
        return next((outage for outage in self.outages if outage.begin <= second < outage.end), None)

    def served(self, begin: float, end: float) -> float:
        """Seconds between these two outside of outages."""
        out = [(max(begin, outage.begin), min(end, outage.end)) for outage in self.outages]
        total, reached = end - begin, begin
        for low, high in sorted(out):
            low = max(low, reached)
            if high > low:
                total -= high - low
                reached = high
        return total


def parse_changes(text: str) -> tuple[tuple[float, float], ...]:
    """`40:0.5,80:1`: from second 40 half of the limits, from second 80 all of them again. Raises ConfigError."""
    found = [_CHANGE.fullmatch(part.strip()) for part in text.split(",") if part.strip()]
    if not all(found):
        raise ConfigError(f"reading changes of limits {text!r}: write SECOND:FACTOR separated by commas, such as 40:0.5,80:1")
    return tuple((float(match[1]), float(match[2])) for match in found if match)


def parse_outages(text: str) -> tuple[Outage, ...]:
    """`60-120,200-230:refused,300-:hang`; one without an end lasts for ever, one without a kind is 503. Raises ConfigError."""
    outages: list[Outage] = []
    for part in filter(None, map(str.strip, text.split(","))):
        match = _OUTAGE.fullmatch(part)
        kind = next((kind for kind in _KINDS if match and kind == (match[3] or "503")), None)
        if match is None or kind is None:
            raise ConfigError(f"reading outages {text!r}: write BEGIN-END:KIND in seconds, kinds: {', '.join(_KINDS)}")
        outages.append(Outage(float(match[1]), float(match[2]) if match[2] else math.inf, kind))
    return tuple(outages)
