"""Where in its database a change was written, and the id by which a repeated event is known.

Debezium delivers at least once: after a restart it writes again what it had not acknowledged, with the same `source` but a new
`ts_ms` of its own. So an event's id is made of the connector's position, the operation and the key. The key is in it because
positions are not unique by themselves: all rows of a snapshot share one, so do rows of a PostgreSQL multi-insert, and the delete
and create of a changed primary key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from zlib import crc32

from schemas.change import SourcePosition
from topics.decode.ids import path

_LSN = re.compile(r"[0-9a-fA-F]{1,8}:[0-9a-fA-F]{1,8}:[0-9a-fA-F]{1,4}", re.ASCII)
_LAST_NUMBER = re.compile(r"(\d{1,18})$", re.ASCII)
_DIGITS = re.compile(r"-?\d{1,30}", re.ASCII)

Place = tuple[tuple[int, ...], str]
"""The comparable order, and the position as text; empty where the source has none that a repeat could be known by."""


def whole(value: Any) -> int | None:
    """An integer, also where it is written as text (CloudEvents attributes, headers); else None."""
    kind = type(value)
    if kind is int:
        return value  # type: ignore[no-any-return]  # `kind` says so, but narrows nothing
    if kind is str and _DIGITS.fullmatch(value):
        return int(value)
    if kind is Decimal and abs(value.adjusted()) < 30 and value == value.to_integral_value():
        return int(value)
    return None


def postgresql(source: Mapping[str, Any]) -> Place:
    """(last commit LSN, LSN): logical decoding sends transactions in commit order, within which LSNs may go back.

    `sequence` is `["last commit","lsn"]`; its first part is null until the connector has seen a commit after a start, where
    the LSN itself stands for it: it lies behind all commits seen earlier, unless transactions overlapped.
    """
    lsn = source.get("lsn")
    if type(lsn) is not int:
        lsn = whole(lsn)
        if lsn is None:
            return (), ""
    sequence = source.get("sequence")
    if type(sequence) is str and not sequence.startswith("[null"):
        commit = whole(sequence.partition(",")[0].strip('[" '))
        return (lsn if commit is None else commit, lsn), str(lsn)
    return (lsn, lsn), str(lsn)


def mysql(source: Mapping[str, Any]) -> Place:
    """(number of the binlog file, position, row within the event). MariaDB writes the same."""
    file, pos, row = source.get("file"), whole(source.get("pos")), whole(source.get("row")) or 0
    number = _LAST_NUMBER.search(file) if isinstance(file, str) else None
    if number is None or pos is None:
        return (), ""
    return (int(number.group(1)), pos, row), f"{file}:{pos}:{row}"


def sqlserver(source: Mapping[str, Any]) -> Place:
    """(commit LSN, change LSN, event serial number); snapshot rows have no change LSN."""
    commit, change = _lsn(source.get("commit_lsn")), _lsn(source.get("change_lsn"))
    if commit is None:
        return (), ""
    serial = whole(source.get("event_serial_no")) or 0
    return (commit, change or 0, serial), f"{commit:x}:{change or 0:x}:{serial}"


def mongodb(source: Mapping[str, Any]) -> Place:
    """(cluster time in ms, ordinal within it). All changes of a transaction share it: see `event_id`."""
    ts_ms, ord_ = whole(source.get("ts_ms")), whole(source.get("ord"))
    if ts_ms is None or ord_ is None:
        return (), ""
    return (ts_ms, ord_), f"{ord_}:{whole(source.get('txnNumber')) or 0}"


def oracle(source: Mapping[str, Any]) -> Place:
    """(commit SCN, SCN): it orders, but one SCN may hold several changes, so a repeat can not be told by it."""
    scn = whole(source.get("scn"))
    commit = whole(source.get("commit_scn"))
    return ((commit if commit is not None else scn, scn), "") if scn is not None else ((), "")


def _lsn(value: Any) -> int | None:
    """`00000027:00000758:0005` as one number."""
    if not isinstance(value, str) or not _LSN.fullmatch(value):
        return None
    high, middle, low = value.split(":")
    return int(high, 16) << 48 | int(middle, 16) << 16 | int(low, 16)


_PLACES: dict[str, Callable[[Mapping[str, Any]], Place]] = {
    "postgresql": postgresql, "mysql": mysql, "mariadb": mysql, "sqlserver": sqlserver, "mongodb": mongodb, "oracle": oracle,
}  # fmt: skip
_NOT_SNAPSHOT = (None, False, "false", "")
_PARTS = 8
"""What an id has before its key; none of them holds a slash, save in names that somebody chose to be so."""
UNIQUE_WITHOUT_KEY = frozenset({"mysql", "mariadb", "sqlserver"})
"""Connectors whose streaming positions name one row each, so that a table without a primary key has event ids too."""


def connector_of(flat: Mapping[str, Any]) -> str:
    """Which connector wrote the metadata fields of a flattened row, told by the positions among them."""
    if "lsn" in flat:
        return "postgresql"
    if "commit_lsn" in flat:
        return "sqlserver"
    if "file" in flat and "pos" in flat:
        return "mysql"
    return "oracle" if "scn" in flat else "mongodb" if "ord" in flat else ""


def position_of(source: Mapping[str, Any]) -> tuple[SourcePosition, str]:
    """The position that a `source` block says, and its text for `event_id`. Never raises; what is malformed is left empty."""
    get = source.get
    connector = get("connector")
    if not isinstance(connector, str):
        connector = ""
    place = _PLACES.get(connector)
    order, text = place(source) if place is not None else ((), "")
    table = get("table") if connector != "mongodb" else get("collection")
    name, db, schema, ts_ms = get("name"), get("db"), get("schema"), get("ts_ms")
    return (
        SourcePosition(
            connector,
            name if type(name) is str else "",
            db if type(db) is str else "",
            schema if type(schema) is str else "",
            table if type(table) is str else "",
            ts_ms if type(ts_ms) is int else whole(ts_ms),
            get("snapshot") not in _NOT_SNAPSHOT,
            order,
        ),
        text,
    )


def event_id(place: str, at: SourcePosition, op: str, key: Mapping[str, Any], transaction: Any, extra: Any) -> str:
    """An id that is equal for a repeated event and distinct for every other, or empty where no such id can be made.

    Database and schema are in it because a topic may be fed from several, whose rows of one snapshot share position and time.
    `transaction` is the envelope's transaction block: its `total_order` tells the rows of a keyless table apart. `extra` is
    MongoDB's update description: one transaction may update a document twice under one cluster time.
    """
    if not place:
        return ""
    if key:
        which = repr(tuple(key.values())) if len(key) > 1 else str(next(iter(key.values())))
    elif isinstance(transaction, dict) and (total := whole(transaction.get("total_order"))) is not None:
        which = f"#{total}"
    elif at.connector in UNIQUE_WITHOUT_KEY and not at.snapshot:
        which = "-"
    else:
        return ""
    if extra is not None:
        op = f"{op}+{crc32(repr(extra).encode('utf-8', 'replace')):08x}"
    found = f"{at.connector}/{at.name}/{at.db}/{at.schema}/{at.table}/{at.ts_ms}/{place}/{op}/"
    if found.count("/") != _PARTS or "%" in found:
        found = path((at.connector, at.name, at.db, at.schema, at.table, at.ts_ms, place, op))
    return found + which
