"""Whether what a store holds can be gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import orjson

from topics.record import RawRecord
from topics.reference.store import Meta
from topics.spec import TopicSpec


def checksum(record: RawRecord) -> int:
    """Tells a record from another one at the same offset of another log."""
    return crc32(record.value or b"", crc32(record.key or b"", record.timestamp & 0xFFFFFFFF))


def fingerprint(spec: TopicSpec[Any], partitions: int) -> str:
    """What must not change for stored rows to be found again under their keys."""
    encoding = [getattr(spec.encoding, name) for name in ("decimals", "temporals", "unwrapped")]
    plain = [dict(sorted(part.items())) if isinstance(part, Mapping) else part for part in encoding]
    return repr((spec.topic, partitions, spec.key, *plain, dict(sorted(spec.clean.rename.items()))))


def model_hash(spec: TopicSpec[Any]) -> str:
    """Tells one row model, with its cleaning, from another."""
    schema = spec.row.model_json_schema() if spec.row is not None else {}
    text = orjson.dumps([schema, repr(spec.clean)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def distrust(
    meta: Meta,
    identity: str,
    model: str,
    log_starts: Mapping[int, int],
    log_ends: Mapping[int, int],
    age_ms: float,
    most_age_ms: float,
) -> str | None:
    """Why a store must be rebuilt, in words, or None. Offsets by partition; `age_ms` since it last followed its topic."""
    if meta.identity != identity:
        return "the topic's partitions, key or encoding have changed"
    if meta.faults and meta.model != model:
        return "the row model has changed since it could not read some records"
    for partition, position in meta.positions.items():
        if not log_starts[partition] <= position <= log_ends[partition]:
            return f"position {position} of partition {partition} is outside the log"
    if age_ms > most_age_ms:
        return "it has not followed the topic for half of delete.retention.ms"
    return None
