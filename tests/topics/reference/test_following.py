"""A topic followed on real brokers: read whole, gone on with after a restart, waited for, named when it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from schemas.errors import BrokerError, TopicError
from schemas.receipt import Position
from tests.support.kafka import create_topic, produce
from tests.support.reference import SPEC, OlderCustomer, body, decode, following, gone, name, until
from topics.dev_broker import ApacheKafka, LocalBroker, free_port
from topics.reference import ReferenceTable


async def test_a_topic_is_read_whole_and_followed(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """Ready means that every row written before the start is there; later ones arrive and wake who waits for them."""
    name_ = await create_topic(broker.bootstrap, topic(), 3, cleanup_policy="compact")
    await produce(broker.bootstrap, name_, [body(n, str(n)) for n in range(700)])
    async with following(broker, name_, tmp_path) as table:
        assert [name(table.get(n)) for n in range(700)] == [str(n) for n in range(700)]
        assert sum(p.offset for p in table.positions()) == 700
        assert {p.partition for p in table.positions()} == {0, 1, 2}
        waiting = asyncio.create_task(table.wait_for(7000, 60))
        await asyncio.sleep(0)
        await produce(broker.bootstrap, name_, [body(7000, "late"), gone(1)])
        assert name(await waiting) == "late"
        await until(lambda: (row := table.get(1)) is not None and row.deleted)


async def test_an_empty_topic_is_ready_at_once(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """Nothing to read is nothing to wait for."""
    name_ = await create_topic(broker.bootstrap, topic(), 2)
    async with following(broker, name_, tmp_path) as table:
        assert table.get(1) is None
        assert [p.offset for p in table.positions()] == [0, 0]


async def test_a_restart_goes_on_where_the_store_was_left(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """Rows are not read twice, rows written meanwhile are found, and deletes are honoured over the restart."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(n) for n in range(20)])
    async with following(broker, name_, tmp_path) as table:
        assert table.counts["rows"] == 20
    await produce(broker.bootstrap, name_, [body(50), gone(3)])
    async with following(broker, name_, tmp_path) as table:
        assert table.counts == {"rows": 1, "deletes": 1}
        assert name(table.get(19)) == "a"
        found = table.get(3)
        assert found is not None
        assert (found.deleted, found.offset) == (True, 21)


async def test_a_store_that_may_have_missed_deletes_is_rebuilt(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """After half of delete.retention.ms a delete may have come and gone unseen."""
    name_ = await create_topic(broker.bootstrap, topic(), 1, cleanup_policy="compact")
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as table:
        now = table._wall_ms()
    async with following(broker, name_, tmp_path, wall_ms=lambda: now + 11 * 3_600_000) as table:
        assert table.counts["rebuilds"] == 0
    async with following(broker, name_, tmp_path, wall_ms=lambda: now + 13 * 3_600_000) as table:
        assert table.counts["rebuilds"] == 1
        assert name(table.get(1)) == "a"


async def test_a_running_table_that_lost_touch_for_long_is_rebuilt(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A process that was stopped, or cut off, for half of delete.retention.ms does not go on as if nothing had happened."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as table:
        await until(lambda: table._caught_up == {0})
        table._rows.meta.fresh[0] -= 13 * 3_600_000
        await until(lambda: table.counts["rebuilds"] == 1)
        assert name(table.get(1)) == "a"
        await until(lambda: not table._rows.meta.building)
        assert table.counts["rows"] == 2


async def test_bad_records_do_not_stop_a_table(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """What can not be read is counted; the rows around it are there."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1), (b'{"id": 2}', b"\xff"), body(3)])
    async with following(broker, name_, tmp_path) as table:
        assert table.counts["fault:not-json"] == 1
        assert name(table.get(3)) == "a"
    other = replace(SPEC, physical=name_, row=OlderCustomer)
    table = ReferenceTable(other, {"bootstrap_servers": broker.bootstrap}, tmp_path, decode=decode)
    await table.start()
    await table.ready()
    assert table.counts["rebuilds"] == 1
    await table.stop()


async def test_what_a_receipt_names_is_waited_for(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """A successor does not decide with an older table than its predecessor's."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path, ready=False) as table:
        table.require([Position(name="x", topic="other", partition=0, offset=99)])
        table.require([Position(name="customers", topic=name_, partition=0, offset=2)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await table.ready()
        await produce(broker.bootstrap, name_, [body(2)])
        async with asyncio.timeout(60):
            await table.ready()
        assert name(table.get(2)) == "a"
        assert table.counts["ahead"] == 0


async def test_a_receipt_that_is_ahead_of_the_log_does_not_hold_an_agent_for_ever(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A topic that was cut back is said, counted and gone on with."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as table:
        table.require([Position(name="customers", topic=name_, partition=0, offset=500)])
        async with asyncio.timeout(60):
            await table.ready()
        assert table.counts["ahead"] == 1


async def test_two_tables_on_one_folder_do_not_meet(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """Two workers of one machine each follow the topic into a store of their own."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as one, following(broker, name_, tmp_path) as two:
        assert name(one.get(1)) == name(two.get(1)) == "a"
        assert one._store is not None
        assert two._store is not None
        assert one._store.path != two._store.path


async def test_a_topic_that_is_not_there_is_named(broker: LocalBroker, tmp_path: Path) -> None:
    """The error says which topic; nothing stays open."""
    spec = replace(SPEC, physical="absent-topic")
    table = ReferenceTable(spec, {"bootstrap_servers": broker.bootstrap}, tmp_path, decode=decode)
    with pytest.raises(TopicError, match="absent-topic"):
        await table.start()


async def test_no_broker_is_a_broker_error(tmp_path: Path) -> None:
    """A caller needs to know one tree of exceptions only."""
    spec = replace(SPEC, physical="t")
    table = ReferenceTable(spec, {"bootstrap_servers": f"127.0.0.1:{free_port()}"}, tmp_path, decode=decode)
    with pytest.raises(BrokerError):
        await table.start()


@pytest.mark.kafka
async def test_rows_of_an_aborted_transaction_are_never_seen(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Read committed: neither while the transaction is open nor after; its markers do not keep the table from being ready."""
    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic("tx"))
    await producer.start()
    key, value = body(1, "committed")
    async with producer.transaction():
        await producer.send_and_wait(name_, value, key)
    await producer.begin_transaction()
    await producer.send_and_wait(name_, body(1, "aborted")[1], key)
    async with following(kafka, name_, tmp_path) as table:
        assert name(table.get(1)) == "committed"
        await producer.abort_transaction()
        async with producer.transaction():
            key2, value2 = body(2, "next")
            await producer.send_and_wait(name_, value2, key2)
        assert name(await table.wait_for(2, 60)) == "next"
        assert name(table.get(1)) == "committed"
    await producer.stop()
    async with following(kafka, name_, tmp_path) as table:
        assert table.counts["rebuilds"] == 0
        assert name(table.get(1)) == "committed"


@pytest.mark.kafka
async def test_a_broker_that_restarts_is_followed_on(kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path) -> None:
    """Lookups go on while the broker is away, and what is written after it comes back arrives; nothing is read twice."""
    name_ = await create_topic(kafka.bootstrap, topic(), 2)
    await produce(kafka.bootstrap, name_, [body(n) for n in range(10)])
    async with following(kafka, name_, tmp_path) as table:
        restart = asyncio.create_task(asyncio.to_thread(kafka.restart))
        await asyncio.sleep(0.5)
        assert name(table.get(1)) == "a"
        await restart
        await produce(kafka.bootstrap, name_, [body(10, "after")])
        assert name(await table.wait_for(10, 60)) == "after"
        assert table.counts == {"rows": 11}
