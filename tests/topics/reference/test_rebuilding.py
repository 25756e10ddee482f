"""A topic on real brokers that is not the one that was read: cut, made anew, grown or long out of touch, it is read anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.kafka import create_topic, produce
from tests.support.reference import body, following, gone, name, until
from topics.dev_broker import ApacheKafka, EmbeddedBroker, LocalBroker
from topics.reference import row_key
from topics.reference.store import Store


async def test_a_topic_made_anew_under_its_old_name_is_noticed(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """The record at the position is another one: the store is rebuilt, and rows of the old topic are gone."""
    first = await create_topic(broker.bootstrap, topic(), 1)
    second = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, first, [body(n, "old") for n in range(5)])
    await produce(broker.bootstrap, second, [body(n, "new") for n in range(3, 12)])
    async with following(broker, first, tmp_path) as table:
        assert name(table.get(0)) == "old"
    # what a worker finds after the topic was deleted and made anew, without waiting for a broker to do it
    store = Store(tmp_path)
    assert store.meta is not None
    store.write({}, replace(store.meta, identity=store.meta.identity.replace(first, second)))
    store.close()
    async with following(broker, second, tmp_path) as table:
        assert table.counts["rebuilds"] == 1
        assert table.get(0) is None
        assert name(table.get(3)) == "new"
        assert [p.offset for p in table.positions()] == [9]


async def test_a_position_beyond_the_end_of_the_log_means_another_log(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A shorter log than was read is not the one that was read."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path):
        pass
    store = Store(tmp_path)
    assert store.meta is not None
    row = store.get(row_key(("id",), 1) or b"")
    assert row is not None
    store.write({row_key(("id",), 9) or b"": row}, replace(store.meta, positions={0: 100}))
    store.close()
    async with following(broker, name_, tmp_path) as table:
        assert table.counts["rebuilds"] == 1
        assert [p.offset for p in table.positions()] == [1]
        assert table.get(9) is None


@pytest.mark.kafka
async def test_a_log_that_was_cut_below_the_position_is_read_anew(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Records that retention removed unread may have been deletes: what is not in the log any more is forgotten."""
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete  # only this test needs to cut a log
    from aiokafka.structs import TopicPartition

    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    await produce(kafka.bootstrap, name_, [body(1)])
    async with following(kafka, name_, tmp_path):
        pass
    await produce(kafka.bootstrap, name_, [gone(1), body(2), body(3)])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(name_, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    async with following(kafka, name_, tmp_path) as table:
        assert table.counts["rebuilds"] == 1
        assert table.get(1) is None
        assert name(table.get(3)) == "a"


@pytest.mark.kafka
async def test_a_running_table_is_rebuilt_when_partitions_are_added(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Rows of the new partitions are found, and lookups are answered all the while."""
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions  # only this test adds partitions

    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    await produce(kafka.bootstrap, name_, [body(n) for n in range(10)])
    async with following(kafka, name_, tmp_path) as table:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_partitions({name_: NewPartitions(2)})
        await admin.close()
        await produce(kafka.bootstrap, name_, [body(77, "there")], partition=1)
        assert table._consumer is not None
        await table._consumer._client.force_metadata_update()  # or half a minute later by itself
        found = await table.wait_for(77, 60)
        assert name(found) == "there"
        assert name(table.get(9)) == "a"
        assert table.counts["rebuilds"] == 1
        await until(lambda: not table._rows.meta.building)
        assert {p.partition: p.offset for p in table.positions()} == {0: 10, 1: 1}


@pytest.mark.kafka
async def test_a_running_table_follows_over_a_cut_of_its_log(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A position that falls out of the log while the table runs costs a rebuild, not the process."""
    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    await produce(kafka.bootstrap, name_, [body(1)])
    async with following(kafka, name_, tmp_path) as table:
        assert table._consumer is not None
        await produce(kafka.bootstrap, name_, [body(2)])
        assert name(await table.wait_for(2, 60)) == "a"
        table._consumer.seek(next(iter(table._consumer.assignment())), 1000)
        await until(lambda: table.counts["rebuilds"] == 1)
        await produce(kafka.bootstrap, name_, [body(3)])
        assert name(await table.wait_for(3, 60)) == "a"
        assert name(table.get(1)) == "a"


async def test_a_topic_that_is_deleted_under_a_table_is_waited_for(topic: Callable[..., str], tmp_path: Path) -> None:
    """A broker that lost everything costs the table nothing that it holds, and it follows the topic when it is back."""
    name_ = topic()
    with EmbeddedBroker() as mine:
        await create_topic(mine.bootstrap, name_, 1)
        await produce(mine.bootstrap, name_, [body(n, "old") for n in range(10)])
        async with following(mine, name_, tmp_path) as table:
            await asyncio.to_thread(mine.restart)
            await asyncio.sleep(0.5)
            assert name(table.get(1)) == "old"
            await create_topic(mine.bootstrap, name_, 1)
            await produce(mine.bootstrap, name_, [body(5, "new")])
            await until(lambda: table.counts["rebuilds"] >= 1 and not table._rows.meta.building)
            assert name(table.get(5)) == "new"
            assert table.get(1) is None
