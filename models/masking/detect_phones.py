"""Finds phone numbers by the ways in which they are written. Pure.

A numbering plan can not tell a phone number from an order number, and asking those of many countries takes milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from models.masking.detect import BEFORE_NUMBER, Span

# With its country code: a number in any country.
_PLUS: Final = r"\+[ (]{0,2}[1-9](?:[ ()./-]{0,3}\d){6,14}"
_ZEROS: Final = r"(?<!\d )00[ (]{0,2}[1-9](?:[ ()./-]{0,3}\d){6,14}"
# Not a date, which may begin with a zero as well.
_TRUNK: Final = r"(?!\d{1,2}([/.-])\d{1,2}\1\d{2,4}(?!\d))(?:0[1-9]\d{0,4}|\(0[1-9]\d{0,4}\))[ /-]{0,3}\d(?:[ /.-]?\d){4,9}"
_AMERICAN: Final = r"(?:1[ .-])?(?:\([2-9]\d{2}\)[ .-]?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}"
_WAYS: Final[dict[str, tuple[str, ...]]] = {
    _TRUNK: ("AT", "AU", "BE", "CH", "DE", "FI", "FR", "GB", "IE", "IN", "IT", "JP", "KR", "NL", "RO", "SE", "TR", "ZA"),
    _AMERICAN: ("CA", "US"),
    r"[679]\d{2} (?!000)\d{3} (?!000)\d{3}|[679]\d{2} \d{2} \d{2} \d{2}": ("ES",),
    r"9\d{2} (?!000)\d{3} (?!000)\d{3}": ("PT",),
    r"[4-8]\d{2}[ -](?!000)\d{3}[ -](?!000)\d{3}": ("PL",),
    r"[2-9]\d \d{2} \d{2} \d{2}": ("DK", "NO"),
    r"3\d{2}[ -]?\d{3}[ -]?\d{4}": ("IT",),
    r"1[3-9]\d[ -]?\d{4}[ -]?\d{4}": ("CN",),
    r"[6-9]\d{4}[ -]?\d{5}": ("IN",),
    r"\(?[1-9]{2}\)?[ -]9?\d{4}[ -]\d{4}": ("BR",),
}
_ENOUGH: Final = re.compile(r"\d(?:[ ()./-]{0,3}\d){6}")
COUNTRIES: Final = tuple(sorted({country for countries in _WAYS.values() for country in countries}))
"""Countries whose way of writing a number without its country code is known, as ISO 3166 codes."""


class Phones:
    """Numbers with their country code, and those of `countries` without it."""

    def __init__(self, countries: Collection[str]) -> None:
        ways = [_ZEROS, *(way for way, whose in _WAYS.items() if not set(whose).isdisjoint(countries))]
        bounded = [rf"(?<![A-Za-z+]){BEFORE_NUMBER}(?:{way})(?![A-Za-z\d])" for way in ways]
        self._patterns = [re.compile(way, re.ASCII) for way in (rf"(?<!\d){_PLUS}(?!\d)", *bounded)]

    def __call__(self, text: str) -> Iterator[Span]:
        """Where they stand."""
        if _ENOUGH.search(text):
            for pattern in self._patterns:
                yield from (match.span() for match in pattern.finditer(text))
