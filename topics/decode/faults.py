"""How a decoder stops inside itself: one exception that carries the Fault, caught at the door and never let out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from schemas.dead_letter import Fault, Stage

QUOTED = 20
"""Most characters of a value that a fault may quote: dead letters are read by more people than the source."""


class Bad(Exception):
    """Unwinds to the nearest place that can go on without the bad part; `fault` says what is bad."""

    def __init__(self, reason: str, detail: str = "", field: str | None = None, stage: Stage = "decode") -> None:
        super().__init__(reason)
        self.fault = Fault(stage=stage, reason=reason, detail=detail, field=field)


def short(value: Any) -> str:
    """A value as a person may see it in a fault: at most 20 characters of a number or text, else only its type."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= QUOTED else value[:QUOTED] + "...")
    if isinstance(value, (int, float, Decimal)):
        # An integer of thousands of digits can not be printed (sys.set_int_max_str_digits): say so instead.
        if isinstance(value, int) and value.bit_length() > 64:
            return f"an integer of {value.bit_length()} bits"
        text = str(value)
        return text if len(text) <= QUOTED else text[:QUOTED] + "..."
    return "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else f"a {type(value).__name__}"
