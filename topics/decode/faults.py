"""How a decoder stops inside itself: one exception that carries the Fault, caught at the door and never let out."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from schemas.dead_letter import Fault, Stage

QUOTED = 20
"""Most characters of a value that a fault may quote: dead letters are read by more people than the source."""
NOT_SHOWN = "(not shown)"
VALUE, FOREIGN = "\x01", "\x02"
_INSTEAD, _END = "\x1f", "\x03"
_NO_MARKS = dict.fromkeys((1, 2, 3, 0x1F), "?")
MARKED = re.compile("([\x01\x02])([^\x1f]*)\x1f([^\x03]*)\x03")
"""What `quoted` made: its kind, what stands for it where it may not be shown, and the text itself."""


class Bad(Exception):
    """Unwinds to the nearest place that can go on without the bad part; `fault` says what is bad."""

    def __init__(self, reason: str, detail: str = "", field: str | None = None, stage: Stage = "decode") -> None:
        super().__init__(reason)
        self.fault = Fault(stage=stage, reason=reason, detail=detail, field=field)


def quoted(text: str, instead: str = NOT_SHOWN, *, kind: str = VALUE) -> str:
    """A text that comes from the record, marked as such: telling.py decides whether it is shown.

    Every part of a detail that depends on a value goes through here or through `short`. `kind` FOREIGN is for what a user's own
    code wrote, which may be about any column, not only the fault's.
    """
    return f"{kind}{instead}{_INSTEAD}{text.translate(_NO_MARKS)}{_END}"


def short(value: Any) -> str:
    """A value as a person may see it in a fault, marked: at most 20 characters of a number or text, else only its type."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    return quoted(_shown(value))


def _shown(value: Any) -> str:
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
    return f"a {type(value).__name__}"
