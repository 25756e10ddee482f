"""Reading what lies behind: a groupless, read-committed consumer for windows and for the last receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import OutcomeUnknown
from schemas.receipt import Receipt
from topics.chain import Tip, head
from topics.ends import end_offsets
from topics.handover import TopicPartition
from topics.record import RawRecord
from topics.tolerant.consumer import TolerantConsumer

_PATIENCE = 15.0
"""Seconds without progress after which reading back fails; the taker tries again."""
_TAIL_STEPS = (8, 64, 4096)


@asynccontextmanager
async def _reader(connection: Mapping[str, Any], tp: TopicPartition) -> AsyncIterator[Any]:
    consumer = TolerantConsumer(
        **connection,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=2000,
        fetch_max_wait_ms=200,
    )
    try:
        await asyncio.wait_for(consumer.start(), _PATIENCE)
        consumer.assign([KafkaTopicPartition(*tp)])
        yield consumer
    except (KafkaError, TimeoutError) as exc:
        raise OutcomeUnknown(f"reading back {tp.topic}/{tp.partition}: {exc!r}") from exc
    finally:
        await consumer.stop()


async def _until(consumer: Any, tp: KafkaTopicPartition, first: int, end: int) -> AsyncIterator[Sequence[RawRecord]]:
    consumer.seek(tp, first)
    loop = asyncio.get_running_loop()
    moved = loop.time()
    at = first
    while at < end:
        records = [r for r in (await consumer.getmany(tp, timeout_ms=200)).get(tp, ()) if r.offset < end]
        if records:
            yield records
        position = await consumer.position(tp)
        if position > at:
            at, moved = position, loop.time()
        elif loop.time() - moved > _PATIENCE:
            raise OutcomeUnknown(f"reading back {tp.topic}/{tp.partition}: stuck at {at} of {end}")


async def read_back(
    connection: Mapping[str, Any], tp: TopicPartition, first: int, end: int
) -> AsyncIterator[Sequence[RawRecord]]:
    """The records at offsets [first, end) that the log still holds, in order. Raises OutcomeUnknown when it is stuck."""
    if first >= end:
        return
    async with _reader(connection, tp) as consumer:
        kafka_tp = KafkaTopicPartition(*tp)
        begin = (await consumer.beginning_offsets([kafka_tp]))[kafka_tp]
        async for records in _until(consumer, kafka_tp, max(first, begin), end):
            yield records


def receipt_key(source: TopicPartition) -> bytes:
    """The key of every receipt of a source partition."""
    return f"{source.topic}/{source.partition}".encode()


class Link(NamedTuple):
    """The last receipt of a source partition: its number, and the end of the audit chain with it."""

    seq: int
    tip: Tip


async def last_receipt(connection: Mapping[str, Any], receipts: str, source: TopicPartition) -> Receipt | None:
    """The newest receipt of a source partition, looked for among the last few thousand records of its receipts."""
    found = await _last(connection, receipts, source, None)
    return found[0] if found is not None else None


async def last_link(connection: Mapping[str, Any], receipts: str, source: TopicPartition, run: str) -> Link | None:
    """Where the audit chain of a source partition and run ends; None where no receipt is found, looked for as above."""
    found = await _last(connection, receipts, source, run)
    if found is None:
        return None
    receipt, value = found
    count = receipt.chain.first + receipt.chain.count if receipt.chain is not None else 0
    return Link(receipt.seq, Tip(head(value), count))


async def _last(
    connection: Mapping[str, Any], receipts: str, source: TopicPartition, run: str | None
) -> tuple[Receipt, bytes] | None:
    tp = TopicPartition(receipts, source.partition)
    async with _reader(connection, tp) as consumer:
        kafka_tp = KafkaTopicPartition(*tp)
        begin = (await consumer.beginning_offsets([kafka_tp]))[kafka_tp]
        end = (await end_offsets(connection, [kafka_tp]))[kafka_tp]
        key = receipt_key(source)
        for step in _TAIL_STEPS:
            found: tuple[Receipt, bytes] | None = None
            async for records in _until(consumer, kafka_tp, max(begin, end - step), end):
                for record in records:
                    if record.key == key and record.value:
                        receipt = Receipt.model_validate_json(record.value)
                        found = (receipt, record.value) if run in (None, receipt.run) else found
            if found is not None or end - step <= begin:
                return found
    return None
