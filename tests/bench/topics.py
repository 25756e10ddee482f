"""Topics of the bench: creating them, filling a source, reading decisions back, and the digest that two contenders must share."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.engine.topology import own_topics
from tests.bench.shared import PARTITIONS, lean_agent, record


async def create(bootstrap: str, *topics: str) -> None:
    """Create topics of as many partitions as the source; those that exist are left. The fixed clock is far past any retention."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs={"retention.ms": "-1"}) for name in topics])
    finally:
        await admin.close()


async def prepare(bootstrap: str) -> None:
    """The topics that the engine itself writes for the lean agent."""
    agent = lean_agent("unused", "unused")
    await create(bootstrap, *(spec.topic for spec in own_topics(agent.name, agent.reads)))
    await asyncio.sleep(0.5)


async def fill(bootstrap: str, topic: str, count: int) -> None:
    """The first `count` records. Each gets the same coordinates and timestamp whenever it is filled."""
    await create(bootstrap, topic)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=524_288, enable_idempotence=True)
    await producer.start()
    try:
        at = 0
        while at < count:
            step = min(500 * PARTITIONS, count - at)
            batches = [producer.create_batch() for _ in range(PARTITIONS)]
            for number in range(at, at + step):
                key, value, partition = record(number)
                appended = batches[partition].append(key=key, value=value, timestamp=1_760_000_000_000)
                assert appended is not None, "500 records of 400 bytes fit a batch"
            sent = []
            for partition, batch in enumerate(batches):
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
            await asyncio.gather(*sent)
            at += step
    finally:
        await producer.stop()


async def digest(bootstrap: str, topic: str, count: int) -> str:
    """SHA-256 over the sorted keys, values and headers of all committed records. Raises AssertionError unless there are `count`.

    Which partition a record lies in is not part of it: quixstreams can not be told one.
    """
    found: list[bytes] = []

    def take(records: list[Any]) -> bool:
        found.extend(
            b"\0".join([r.key, r.value, *(part for k, v in sorted(r.headers) for part in (k.encode(), v))]) for r in records
        )
        return len(found) >= count

    await read(bootstrap, topic, take, timeout=60.0)
    assert len(found) == count, f"{topic} holds {len(found)} decisions, not {count}"
    total = hashlib.sha256()
    for line in sorted(found):
        total.update(line)
    return total.hexdigest()


async def read(bootstrap: str, topic: str, take: Callable[[list[Any]], bool], *, timeout: float) -> None:
    """Hand committed records of a topic to `take`, from the beginning, until it says True or `timeout` seconds are over."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, p) for p in range(PARTITIONS)])
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                if take(records):
                    return
    finally:
        await consumer.stop()
