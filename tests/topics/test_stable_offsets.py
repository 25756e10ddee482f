"""Committed offsets that are final: right after a commit, beside an open transaction, and on a broker without transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tests.support.transport import Site, make_site
from topics.dev_broker import LocalBroker
from topics.handover import Outbound
from topics.handover import TopicPartition as Owned
from topics.publish.contract import Position
from topics.publish.transactional import Transactional
from topics.stable_offsets import StableOffsetFetch, stable_offsets


@asynccontextmanager
async def coordinator(site: Site) -> AsyncIterator[Any]:
    """The group coordinator as a consumer of the site's group knows it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=site.bootstrap, group_id=f"{site.name}.group", enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer._coordinator
    finally:
        await consumer.stop()


@pytest.mark.kafka
async def test_what_a_commit_that_has_just_returned_committed_is_told(kafka: LocalBroker) -> None:
    """Asked without waiting after each of fifty commits; a fetch as aiokafka does it told the old offset after one in four."""
    site = await make_site(kafka.bootstrap, partitions=1)
    tp = TopicPartition(site.source, 0)
    publishing = Transactional({"bootstrap_servers": site.bootstrap}, f"{site.name}.group", limits={})
    publisher = await publishing.open(Owned(*tp))
    async with coordinator(site) as group:
        for offset in range(1, 51):
            await publisher.publish([], Outbound(site.receipts, b"k", b"v", (), "audit"), Position(offset, f"at {offset}"))
            assert await stable_offsets(group, [tp]) == {tp: OffsetAndMetadata(offset, f"at {offset}")}
    await publisher.discard()


@pytest.mark.kafka
async def test_an_open_transaction_is_waited_for_but_not_for_ever(kafka: LocalBroker) -> None:
    """The offset of a transaction that has not ended is neither told nor passed over; without an end it is a TimeoutError."""
    site = await make_site(kafka.bootstrap, partitions=2)
    moving, still = TopicPartition(site.source, 0), TopicPartition(site.source, 1)
    producer = AIOKafkaProducer(bootstrap_servers=site.bootstrap, transactional_id=site.name)
    await producer.start()
    try:
        async with coordinator(site) as group:
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction({moving: OffsetAndMetadata(5, "five")}, f"{site.name}.group")
            with pytest.raises(TimeoutError):
                await stable_offsets(group, [moving, still], timeout=0.5)
            assert await stable_offsets(group, [still]) == {}
            waiting = asyncio.create_task(stable_offsets(group, [moving, still]))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await producer.commit_transaction()
            assert await waiting == {moving: OffsetAndMetadata(5, "five")}
    finally:
        await producer.stop()


async def test_offsets_that_no_transaction_holds_are_told_at_once(broker: LocalBroker) -> None:
    """On either broker: partitions without a commit are left out, as are topics that are not there."""
    site = await make_site(broker.bootstrap, partitions=2)
    tps = [TopicPartition(site.source, n) for n in range(2)]
    consumer = AIOKafkaConsumer(bootstrap_servers=site.bootstrap, group_id=f"{site.name}.group", enable_auto_commit=False)
    await consumer.start()
    try:
        group = consumer._coordinator
        assert await stable_offsets(group, []) == {}
        assert await stable_offsets(group, tps) == {}
        consumer.assign(tps)
        await consumer.commit({tps[1]: 3})
        found = await stable_offsets(group, [*tps, TopicPartition(f"{site.name}.absent", 0)])
        assert found == {tps[1]: OffsetAndMetadata(3, "")}
    finally:
        await consumer.stop()


@pytest.mark.kafka
async def test_a_broker_that_can_not_say_what_is_stable_is_asked_as_ever(
    kafka: LocalBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Kafka 2.5 there is no version 7: the request goes out as version 3 and is understood."""
    site = await make_site(kafka.bootstrap, partitions=1)
    tp = TopicPartition(site.source, 0)
    monkeypatch.setattr(StableOffsetFetch, "_CLASSES", StableOffsetFetch._CLASSES[:1])
    consumer = AIOKafkaConsumer(bootstrap_servers=site.bootstrap, group_id=f"{site.name}.group", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(7, "seven")})
        assert await stable_offsets(consumer._coordinator, [tp]) == {tp: OffsetAndMetadata(7, "seven")}
    finally:
        await consumer.stop()
