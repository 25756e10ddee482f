"""Ends of partitions are right on both brokers, the embedded one's wrong answer to ListOffsets included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from topics.dev_broker import ApacheKafka, LocalBroker
from topics.ends import end_offsets


async def _created(broker: LocalBroker, name: str) -> dict[str, str]:
    connection = {"bootstrap_servers": broker.bootstrap}
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1)])
    await admin.close()
    return connection


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_the_end_lies_behind_the_last_record_of_the_last_batch(
    broker: LocalBroker, topic: Callable[..., str], isolation: str
) -> None:
    """Batches of one, five and two records end at one, six and eight; an empty partition ends at zero."""
    name = topic("ends")
    connection = await _created(broker, name)
    full, empty = TopicPartition(name, 0), TopicPartition(name, 1)
    producer = AIOKafkaProducer(**connection, acks="all")
    await producer.start()
    try:
        for count, expected in ((1, 1), (5, 6), (2, 8)):
            batch = producer.create_batch()
            for _ in range(count):
                batch.append(key=None, value=b"v", timestamp=None)
            await (await producer.send_batch(batch, name, partition=0))
            found = await end_offsets(connection, [full, empty], isolation=isolation)  # type: ignore[arg-type]  # parametrized
            assert found == {full: expected, empty: 0}
    finally:
        await producer.stop()


async def test_of_no_partitions_no_broker_is_asked() -> None:
    """Nothing to ask is nothing to connect for."""
    assert await end_offsets({"bootstrap_servers": "127.0.0.1:1"}, []) == {}


@pytest.mark.kafka
async def test_an_open_transaction_holds_the_committed_end_back(kafka: ApacheKafka, topic: Callable[..., str]) -> None:
    """What is not committed yet lies behind the end of a committed reader, and before that of any other."""
    name = topic("ends")
    connection = await _created(kafka, name)
    tp = TopicPartition(name, 0)
    producer = AIOKafkaProducer(**connection, transactional_id=name)
    await producer.start()
    try:
        await producer.begin_transaction()
        await (await producer.send(name, b"v", partition=0))
        assert await end_offsets(connection, [tp]) == {tp: 0}
        assert await end_offsets(connection, [tp], isolation="read_uncommitted") == {tp: 1}
        await producer.commit_transaction()
        found = {tp: 0}
        for _ in range(600):  # the marker comes a moment after the commit has returned
            if (found := await end_offsets(connection, [tp])) != {tp: 0}:
                break
            await asyncio.sleep(0.05)
        assert found == {tp: 2}  # the record and the marker
    finally:
        await producer.stop()
