"""How large a number may be, and exact arithmetic up to there.

JSON writes a number of a billion digits in twelve bytes (`1e999999999`). A Decimal holds it as it is written; the harm is done by
whoever expands it: `int()` and `format(value, "f")` take minutes or the machine's memory. So every Decimal is checked where it is
made, before anything computes with it. Integers are bounded by the parser, to the same number of digits.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any

from pydantic import BaseModel

from schemas.dead_letter import Stage
from topics.decode.faults import Bad

MAX_DIGITS = 4300
"""Most digits of a whole number, and most places behind the point: past it Python refuses to print an integer."""

EXACT = Context(prec=10_000, Emax=99_999, Emin=-99_999)
"""Wide enough that nothing within MAX_DIGITS is rounded by one operation. The thread's own context is never used: its 28 digits
round, make `//` raise, and an agent's code may change it."""


def check_decimal(value: Decimal, field: str | None = None, stage: Stage = "decode") -> None:
    """Raise Bad number-too-large where a Decimal's exponent or digits pass MAX_DIGITS."""
    if not -MAX_DIGITS <= value.adjusted() < MAX_DIGITS or len(str(value)) > MAX_DIGITS + 10:
        raise Bad("number-too-large", f"a number past {MAX_DIGITS} digits", field, stage)


def bounded(value: Any, field: str | None = None) -> None:
    """`check_decimal` of every number in a parsed JSON value. Its depth is bounded by the parser."""
    kind = type(value)
    if kind is Decimal:
        check_decimal(value, field)
    elif kind is dict:
        for inner in value.values():
            bounded(inner, field)
    elif kind is list:
        for inner in value:
            bounded(inner, field)


def bounded_made(value: Any, field: str) -> None:
    """The same of what validation made of a value: it turns text into a Decimal by itself where a container asks for one."""
    if isinstance(value, Decimal):
        check_decimal(value, field)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            bounded_made(key, field)
            bounded_made(inner, field)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for inner in value:
            bounded_made(inner, field)
    elif isinstance(value, BaseModel):
        for _, inner in value:
            bounded_made(inner, field)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            bounded_made(getattr(value, each.name, None), field)
