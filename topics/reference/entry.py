"""How a row lies in the store: the record as it was read, and what deciding about later records needs, in front of it.

The record's own bytes are kept, not the decoded row: numbers stay exact, nothing of ours is unpickled, and a new row model reads
old stores. A record that left columns out (unchanged TOAST) has the older records behind it that did send them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from schemas.change import SourcePosition
from topics.record import Raw, RawRecord

_HEAD = struct.Struct(">BIIQqq")
_LENGTH = struct.Struct(">i")
_NONE = -1
_DELETED, _IGNORED_DELETE, _SOURCE_TIME = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. `timestamp` is the broker's record time, `source` has what `precedence` compares.

    `generation` counts rebuilds: what an older one left is replaced by whatever is read. `ignored_delete` marks a row whose
    last record was a replayed delete: the tombstone that follows each delete is then none of its own. `records` are the raw
    records, newest first; empty for a deleted row.
    """

    generation: int
    partition: int
    offset: int
    timestamp: int
    source: SourcePosition
    deleted: bool = False
    ignored_delete: bool = False
    records: tuple[Raw, ...] = ()

    @property
    def ts_ms(self) -> int:
        """Source time, else the broker's record time."""
        return self.source.ts_ms if self.source.ts_ms is not None else self.timestamp

    def with_ignored_delete(self, ignored: bool) -> Entry:
        """The same row, marked."""
        return replace(self, ignored_delete=ignored)


def keep(record: RawRecord) -> Raw:
    """The parts of a record that decoding it again needs."""
    return Raw(
        topic=record.topic,
        value=record.value,
        key=record.key,
        headers=tuple(record.headers),
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
    )


def pack(entry: Entry) -> bytes:
    """The entry as bytes."""
    source = entry.source
    flags = (
        (_DELETED if entry.deleted else 0)
        | (_IGNORED_DELETE if entry.ignored_delete else 0)
        | (_SOURCE_TIME if source.ts_ms is not None else 0)
    )
    out = [_HEAD.pack(flags, entry.generation, entry.partition, entry.offset, entry.timestamp, source.ts_ms or 0)]
    order = ",".join(map(str, source.order)).encode()
    _put(out, source.connector.encode(), source.name.encode(), order)
    for record in entry.records:
        out.append(_HEAD.pack(0, 0, record.partition, record.offset, record.timestamp, 0))
        _put(out, record.key, record.value)
        out.append(_LENGTH.pack(len(record.headers)))
        for name, value in record.headers:
            _put(out, name.encode("utf-8", "surrogatepass"), value)
    return b"".join(out)


def unpack(data: bytes, topic: str, *, records: bool = True) -> Entry:
    """The entry in these bytes; `records` False leaves the raw records out, which is all that `precedence` needs."""
    flags, generation, partition, offset, timestamp, ts_ms = _HEAD.unpack_from(data)
    at = _HEAD.size
    connector, at = _take(data, at)
    name, at = _take(data, at)
    order, at = _take(data, at)
    source = SourcePosition(
        connector=(connector or b"").decode(),
        name=(name or b"").decode(),
        ts_ms=ts_ms if flags & _SOURCE_TIME else None,
        order=tuple(map(int, order.split(b","))) if order else (),
    )
    raws: list[Raw] = []
    while records and at < len(data):
        raw, at = _record(data, at, topic)
        raws.append(raw)
    return Entry(
        generation, partition, offset, timestamp, source, bool(flags & _DELETED), bool(flags & _IGNORED_DELETE), tuple(raws)
    )


def _record(data: bytes, at: int, topic: str) -> tuple[Raw, int]:
    _, _, partition, offset, timestamp, _ = _HEAD.unpack_from(data, at)
    key, at = _take(data, at + _HEAD.size)
    value, at = _take(data, at)
    (count,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    headers: list[tuple[str, bytes]] = []
    for _ in range(count):
        name, at = _take(data, at)
        content, at = _take(data, at)
        # a header without a value is legal in Kafka and comes as None, whatever the type says
        headers.append(((name or b"").decode("utf-8", "surrogatepass"), content))  # type: ignore[arg-type]  # see above
    return Raw(topic, value, key, tuple(headers), partition, offset, timestamp), at


def _put(out: list[bytes], *fields: bytes | None) -> None:
    for field in fields:
        out.append(_LENGTH.pack(_NONE if field is None else len(field)))
        if field:
            out.append(field)


def _take(data: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if length == _NONE:
        return None, at
    return data[at : at + length], at + length
