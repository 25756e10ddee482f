"""The newest records of a topic: those from a point of time on, in all its partitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError
from topics.ends import end_offsets
from topics.record import RawRecord
from topics.tolerant.consumer import TolerantConsumer
from topics.verify.read import shapes

STALL_SECONDS = 15.0


async def records_since(client: Mapping[str, Any], topic: str, at_ms: int) -> AsyncIterator[RawRecord]:
    """Committed records whose record time is `at_ms` (epoch milliseconds) or later, up to where the topic ended when it began.

    Partition by partition. None where the topic does not exist. A broker that finds no offset by time is read from the log's
    start, so that earlier records may be among them only there. `client` are aiokafka's connection arguments. Raises BrokerError.
    """
    partitions = (await shapes(client, [topic]))[topic].partitions
    if not partitions:
        return
    consumer = TolerantConsumer(
        **client, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed",
        fetch_max_wait_ms=50, max_poll_records=2000,
    )  # fmt: skip
    try:
        await consumer.start()
        for partition in partitions:
            tp = TopicPartition(topic, partition)
            end = (await end_offsets(client, [tp]))[tp]
            consumer.assign([tp])
            at = await _first(consumer, tp, at_ms, end)
            if at < end:
                consumer.seek(tp, at)
            async for record in _until(consumer, tp, at, end):
                yield record
    except KafkaError as error:
        raise BrokerError(f"reading {topic}: {error!r}") from error
    finally:
        await consumer.stop()


async def _first(consumer: Any, tp: TopicPartition, at_ms: int, end: int) -> int:
    """Where to begin: the first offset at or after that time; the log's start where the broker does not tell."""
    begin: int = (await consumer.beginning_offsets([tp]))[tp]
    try:
        found = (await consumer.offsets_for_times({tp: at_ms}))[tp]
    except (KafkaError, ValueError):
        return begin
    return max(begin, int(found.offset)) if found is not None else end


async def _until(consumer: Any, tp: TopicPartition, at: int, end: int) -> AsyncIterator[RawRecord]:
    loop = asyncio.get_running_loop()
    moved = loop.time()
    while at < end:
        for record in (await consumer.getmany(tp, timeout_ms=200)).get(tp, ()):
            if record.offset < end:
                yield record
        position = await consumer.position(tp)
        if position > at:
            at, moved = position, loop.time()
        elif loop.time() - moved > STALL_SECONDS:
            raise BrokerError(f"reading {tp.topic}/{tp.partition}: stuck at {at} of {end}")
