"""Ids of events out of several texts, such that no two lists of texts have the same id.

A second event under an id is skipped as a repeat, so two events under one id would lose one of them. A part that is followed by
another must not hold the mark between them: there it is written as in a URL, and so is `%` itself. All else stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def part(text: str, mark: str) -> str:
    """`text` so that the first `mark` behind it ends it: one inside it is written as `%2F` or the like."""
    if mark in text or "%" in text:
        return text.replace("%", "%25").replace(mark, f"%{ord(mark):02X}")
    return text


def path(parts: Sequence[Any]) -> str:
    """The parts, each of them ended by a slash."""
    return "".join([part(str(each), "/") + "/" for each in parts])


def own_id(value: Any) -> str:
    """The id that a device or publisher gave: a text that is not empty, or a whole number; else an empty text."""
    kind = type(value)
    return value if kind is str else str(value) if kind is int else ""
