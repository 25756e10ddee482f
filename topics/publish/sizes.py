"""Sizes of outbound records, checked before anything is sent.

One record that the broker refuses for its size fails its neighbours in the batch and, with an idempotent producer, every later
send to that partition. So no such record is ever sent. `max.message.bytes` bounds a whole batch: a batch of one record is the
record with the batch's own header.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from schemas.errors import RecordTooLarge
from topics.handover import Outbound
from topics.publish.contract import Limits

DEFAULT_LIMIT = 1_048_588
"""Kafka's own default of max.message.bytes."""
BATCH_OVERHEAD = 61
_RECORD_OVERHEAD = 36
_HEADER_OVERHEAD = 10


def record_size(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] = ()) -> int:
    """An upper bound of what one record adds to a batch, in bytes (varints taken at their longest)."""
    size = _RECORD_OVERHEAD + (len(key) if key else 0) + (len(value) if value else 0)
    for name, content in headers:
        # four bytes is the most that UTF-8 takes for a character; ASCII names, which is nearly all, are exact
        size += _HEADER_OVERHEAD + (len(name) if name.isascii() else 4 * len(name)) + (len(content) if content else 0)
    return size


def check(outbound: Sequence[Outbound], limits: Limits) -> None:
    """Raise RecordTooLarge naming the first record that does not fit its topic."""
    for record in outbound:
        limit = limits.get(record.topic, DEFAULT_LIMIT)
        if _roughly(record) <= limit:
            continue
        size = BATCH_OVERHEAD + record_size(record.key, record.value, record.headers)
        if size > limit:
            raise RecordTooLarge(f"publishing {record.purpose} to {record.topic}: {size} bytes, the topic takes {limit}")


def _roughly(record: Outbound) -> int:
    """A bound that is never below `record_size` with its batch, and cheaper: nearly all records are far from their limit."""
    headers = record.headers
    size = BATCH_OVERHEAD + _RECORD_OVERHEAD + len(record.key or b"") + len(record.value or b"") + _HEADER_OVERHEAD * len(headers)
    return size + 4 * sum(map(len, filter(None, chain.from_iterable(headers))))
