"""What a reference table holds of a row, how rows are looked up, and which of two changes of one row stands."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel

from schemas.change import SourcePosition
from schemas.dead_letter import Fault
from schemas.errors import DataFault


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as a table knows it. `partition` and `offset` are of the record that said so, `ts_ms` its source time.

    `row` is None for a deleted row, which keeps the position of its delete, and where `fault` says why the stored record
    does not fit the row model. `unavailable` names columns whose value no record since the last full one has sent.
    """

    row: BaseModel | None
    topic: str
    partition: int
    offset: int
    ts_ms: int
    deleted: bool = False
    unavailable: frozenset[str] = frozenset()
    fault: Fault | None = None


class Table(Protocol):
    """A keyed table to join with. A key is what `row_key` takes; both methods raise DataFault for one that is none."""

    def get(self, key: Any) -> StoredRow | None:
        """The row of this key now, deleted ones included, or None where none was ever read."""
        ...

    async def wait_for(self, key: Any, timeout: float) -> StoredRow | None:
        """`get`, once there is a row that is not deleted, or after `timeout` seconds."""
        ...


def row_key(columns: Sequence[str], key: Any) -> bytes | None:
    """One canonical form for all ways to write a primary key; None when the key, or a part of it, is None.

    A mapping is taken apart by `columns` ({"id": 7}; other columns in it are ignored; without `columns` all, by name), a list or
    tuple is in their order, anything else is the key of a single column: {"id": 7}, (7,) and 7 are one key. Numbers are equal
    as numbers (7, Decimal("7.00")), but never equal to text ("7") or truth values; UUIDs, dates and times are equal to their ISO
    text. Raises DataFault(join, join-key) for too few or too many parts and for a part of another type.
    """
    if type(key) is int and len(columns) <= 1:  # what most keys are
        text = str(key)
        return f"n{len(text)}:{text}".encode()
    parts: Sequence[Any]
    if isinstance(key, Mapping):
        names = columns or sorted(key)
        missing = [name for name in names if name not in key]
        if missing:
            raise _bad(f"the key lacks {', '.join(missing)}")
        parts = [key[name] for name in names]
    elif isinstance(key, list | tuple):
        parts = key
    else:
        parts = (key,)
    if columns and len(parts) != len(columns):
        raise _bad(f"the key has {len(parts)} parts, the table's is {', '.join(columns)}")
    if any(part is None for part in parts):
        return None
    return "".join(_part(part) for part in parts).encode("utf-8", "surrogatepass")


def _part(value: Any) -> str:
    """Type, length and text: no two lists of parts have the same concatenation."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return f"s{len(value)}:{value}"
    if isinstance(value, bool):
        return f"b{value:d}"
    if isinstance(value, int):
        text = str(value)
    elif isinstance(value, float | Decimal):
        number = Decimal(repr(value)) if isinstance(value, float) else value
        if not number.is_finite() or abs(number.adjusted()) > 400:
            raise _bad("a number in the key is not finite or too large")
        text = str(int(number)) if number == number.to_integral_value() else format(number, "f").rstrip("0")
    elif isinstance(value, bytes):
        text = value.hex()
        return f"x{len(text)}:{text}"
    elif isinstance(value, UUID):
        text = str(value)
        return f"s{len(text)}:{text}"
    elif isinstance(value, date | time):
        text = value.isoformat()
        return f"s{len(text)}:{text}"
    else:
        raise _bad(f"a part of the key is of type {type(value).__name__}")
    return f"n{len(text)}:{text}"


def _bad(detail: str) -> DataFault:
    return DataFault(Fault("join", "join-key", detail))


class Precedence(enum.Enum):
    """What a later record of the log means for the row that an earlier one left."""

    NEWER = "newer"
    REPLAYED = "replayed"
    WENT_BACK = "went-back"


def precedence(stored: SourcePosition, change: SourcePosition) -> Precedence:
    """Whether a change read later is also later at its source.

    REPLAYED when source position and source time are both older: a connector that repeats, and the row stands. WENT_BACK when
    only the position is older: the database was restored or failed over, and the change is taken. Positions are compared only
    within one source; where either has none, the log's order is all there is.
    """
    if not stored.order or not change.order or (stored.connector, stored.name) != (change.connector, change.name):
        return Precedence.NEWER
    if change.order >= stored.order:
        return Precedence.NEWER
    if stored.ts_ms is not None and change.ts_ms is not None and change.ts_ms < stored.ts_ms:
        return Precedence.REPLAYED
    return Precedence.WENT_BACK


class Waiters:
    """Who waits for the row of which key."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def arrived(self, key: bytes) -> None:
        """A row of this key is there: whoever waits for it goes on."""
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, key: bytes, timeout: float) -> None:
        """Return when the row has arrived or `timeout` seconds have passed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            waiting = self._waiting.get(key)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[key]
