"""Row changes as Debezium 3.6 writes them for PostgreSQL: plain JSON without schemas, numeric in base64, default identity.

The shape is that of the captures in tests/data/debezium/plain.jsonl, and the tests hold it against them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import orjson

_EPOCH = date(1970, 1, 1)
_EPOCH_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a PostgreSQL table. `scale` belongs to numeric. Only a nullable column takes None."""

    kind: Literal["bigint", "integer", "text", "boolean", "double", "numeric", "date", "timestamptz"]
    nullable: bool = False
    scale: int = 0

    def wire(self, value: Any) -> Any:
        """The value as Debezium writes it. Raises ValueError for None in a column that is not nullable."""
        if value is None:
            if not self.nullable:
                raise ValueError(f"encoding a {self.kind} column: it is not nullable")
            return None
        if self.kind == "numeric":
            return encode_decimal(value, self.scale)
        if self.kind == "date":
            return (value - _EPOCH).days
        if self.kind == "timestamptz":
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return value

    def placeholder(self) -> Any:
        """What stands in the `before` of a delete for a column that is not in the key: worthless, and it looks like data."""
        if self.nullable:
            return None
        empty = {"text": "", "boolean": False, "double": 0.0, "numeric": Decimal(0), "date": _EPOCH, "timestamptz": _EPOCH_TIME}
        return self.wire(empty.get(self.kind, 0))


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its primary key."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]


@dataclass(slots=True)
class Journal:
    """The write-ahead log of one database, as its connector retells it: every change is later than the one before it."""

    prefix: str = "bank"
    lsn: int = 26_723_728
    transaction: int = 745
    _before: str | None = field(default=None, init=False)

    def insert(self, table: Table, row: Mapping[str, Any], at_ms: int) -> tuple[bytes, bytes]:
        """Key and value of a `c` event."""
        return key_of(table, row), self._event(table, "c", None, self._row(table, row), at_ms)

    def snapshot(self, table: Table, row: Mapping[str, Any], at_ms: int) -> tuple[bytes, bytes]:
        """Key and value of an `r` event: a row that was there when the connector began."""
        return key_of(table, row), self._event(table, "r", None, self._row(table, row), at_ms)

    def update(self, table: Table, row: Mapping[str, Any], at_ms: int) -> tuple[bytes, bytes]:
        """Key and value of a `u` event: before is null, as REPLICA IDENTITY DEFAULT has it."""
        return key_of(table, row), self._event(table, "u", None, self._row(table, row), at_ms)

    def delete(self, table: Table, row: Mapping[str, Any], at_ms: int) -> tuple[bytes, bytes]:
        """Key and value of a `d` event; the tombstone that follows it has the same key and no value."""
        keyed = set(table.key)
        before = {n: column.wire(row[n]) if n in keyed else column.placeholder() for n, column in table.columns.items()}
        return key_of(table, row), self._event(table, "d", before, None, at_ms)

    def _row(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
        unknown = set(row) - set(table.columns)
        if unknown:
            raise ValueError(f"encoding a row of {table.name}: no such column: {', '.join(sorted(unknown))}")
        return {name: column.wire(row[name]) for name, column in table.columns.items()}

    def _event(self, table: Table, op: str, before: Any, after: Any, at_ms: int) -> bytes:
        self.lsn += 136
        self.transaction += 1
        sequence = orjson.dumps([self._before, str(self.lsn)]).decode()
        self._before = str(self.lsn)
        source = {
            "version": "3.6.3.Final", "connector": "postgresql", "name": self.prefix, "ts_ms": at_ms,
            "snapshot": "true" if op == "r" else "false", "db": self.prefix, "sequence": sequence,
            "ts_us": at_ms * 1000, "ts_ns": at_ms * 1_000_000, "schema": "public", "table": table.name,
            "txId": self.transaction, "lsn": self.lsn, "xmin": None, "origin": None, "origin_lsn": None,
        }  # fmt: skip
        seen_ms = at_ms + 4  # the connector reads a change a little after its commit
        return orjson.dumps({
            "before": before, "after": after, "source": source, "transaction": None, "op": op,
            "ts_ms": seen_ms, "ts_us": seen_ms * 1000, "ts_ns": seen_ms * 1_000_000,
        })  # fmt: skip


def key_of(table: Table, row: Mapping[str, Any]) -> bytes:
    """The record key of a row: its primary key as JSON."""
    return orjson.dumps({name: table.columns[name].wire(row[name]) for name in table.key})


def encode_decimal(value: Decimal, scale: int) -> str:
    """A numeric as Kafka Connect's Decimal: the unscaled integer, big endian, two's complement, base64.

    Raises ValueError for a value with more decimal places than `scale`: nothing is rounded.
    """
    shifted = value.scaleb(scale)
    unscaled = int(shifted)
    if unscaled != shifted:
        raise ValueError(f"encoding a numeric: more than {scale} decimal places")
    length = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return base64.b64encode(unscaled.to_bytes(length, "big", signed=True)).decode()


def birth_date(age: int, on: date) -> date:
    """A date of birth for somebody who is `age` on that day; the data set gives the age only."""
    return on - timedelta(days=int(age * 365.25) + 183)
