"""The transport on real brokers: what is read is finished once, committed with its outcome, and read again by nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas.errors import RecordTooLarge
from tests.support.transport import Bounds, Echo, Site, make_site, running, until, where
from topics.dev_broker import LocalBroker
from topics.handover import Finished, Outbound, TopicPartition
from topics.progress import decode
from topics.publish.contract import Promise
from topics.record import RawRecord
from topics.transport import assignment


def promise(broker: LocalBroker) -> Promise:
    """What the broker can keep."""
    return "exactly-once" if broker.transactions else "at-least-once"


async def origins(site: Site) -> Counter[bytes]:
    """How often each input was answered on the outbound topic."""
    return Counter(dict(r.headers)["at"] for r in await site.read(site.out))


def expected(site: Site, counts: dict[int, int]) -> set[bytes]:
    """The coordinates of all inputs."""
    return {b"%s/%d/%d" % (site.source.encode(), p, o) for p, n in counts.items() for o in range(n)}


def chained(receipts: dict[int, list[Any]]) -> bool:
    """No gap and no overlap between the receipts of each partition."""
    return all(b.from_ == a.to and b.seq == a.seq + 1 for found in receipts.values() for a, b in pairwise(found))


async def test_consume_finish_commit(broker: LocalBroker, tmp_path: Path) -> None:
    """Every record is offered once and answered once; receipts chain from 0 to the end; the commit says the same."""
    site = await make_site(broker.bootstrap)
    await site.produce(600)
    handler = Echo(site.out)
    async with running(site, handler, promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 600)
        assert app.runtime.stats.held_records == 0
        assert app.runtime.stats.held_bytes == 0
        assert app.runtime.stats.lag() == dict.fromkeys(app.runtime.stats.owned, 0)
    found = await origins(site)
    assert set(found) == expected(site, {0: 300, 1: 300})
    assert set(found.values()) == {1}
    receipts = await site.read_receipts()
    assert chained(receipts)
    for partition, mine in receipts.items():
        assert (mine[0].from_, mine[0].seq, mine[-1].to) == (0, 1, 300)
        assert sum(r.decisions for r in mine) == 300
        assert mine[0].promise == promise(broker)
        assert mine[0].references[0].offset == 7
        assert mine[0].partition == partition
    assert {p: offset for p, (offset, _) in (await site.committed()).items()} == {0: 300, 1: 300}


async def test_a_successor_goes_on_where_the_frontier_is(broker: LocalBroker, tmp_path: Path) -> None:
    """One record stays unanswered: the successor asks about it, and where metadata is kept about nothing else."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(100)
    first = Echo(site.out, hold=lambda r: r.offset == 10)
    async with running(site, first, promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 99)
    assert (await site.committed())[0][0] == 10
    second = Echo(site.out)
    async with running(site, second, promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.lag() == {(site.source, 0): 0} and app.runtime.stats.outcomes > 0)
    found = await origins(site)
    assert set(found) == expected(site, {0: 100})
    assert second.offered == [(0, o) for o in range(10, 100)]
    receipts = await site.read_receipts()
    assert chained(receipts), "the sequence goes on although the embedded broker forgets metadata"
    if broker.transactions:
        assert second.asked == [(0, 10)]
        assert set(found.values()) == {1}
    else:
        assert second.asked == [(0, o) for o in range(10, 100)], "done ranges are not durable without metadata: repeats, no loss"


async def test_two_workers_share_and_hand_over(broker: LocalBroker, tmp_path: Path) -> None:
    """A second worker joins under load and leaves again: nothing is lost, and drained partitions repeat nothing."""
    site = await make_site(broker.bootstrap, partitions=4)
    await site.produce(400)
    one, two = Echo(site.out, delay=0.02), Echo(site.out, delay=0.02)
    async with running(site, one, promise(broker), tmp_path / "1", feed=site.feed(bounds=Bounds(records=32))) as a:
        await until(lambda: a.runtime.stats.outcomes >= 50)
        feed = site.feed(worker="w2", bounds=Bounds(records=32))
        async with running(site, two, promise(broker), tmp_path / "2", feed=feed) as b:
            await until(lambda: len(b.runtime.stats.owned) == 2 and len(a.runtime.stats.owned) == 2, 40)
            await site.produce(400, first=400)
            await until(lambda: b.runtime.stats.outcomes >= 50, 40)
        await until(lambda: len(a.runtime.stats.owned) == 4, 40)
        await until(lambda: sum(a.runtime.stats.frontiers.values()) == 800, 40)
    found = await origins(site)
    assert set(found) == expected(site, dict.fromkeys(range(4), 200))
    assert set(found.values()) == {1}
    assert chained(await site.read_receipts())
    assert two.taken
    assert set(one.lost) == set(two.taken)


async def test_a_stop_waits_for_calls_in_flight(broker: LocalBroker, tmp_path: Path) -> None:
    """What was being answered when the stop came is published and committed before it ends."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(20)
    handler = Echo(site.out, delay=1.0)
    async with running(site, handler, promise(broker), tmp_path):
        await until(lambda: len(handler.open) == 20)
    assert len(await origins(site)) == 20
    assert (await site.committed())[0][0] == 20


async def test_a_stop_does_not_wait_for_ever(broker: LocalBroker, tmp_path: Path) -> None:
    """Past the drain's limit the stop goes on; what was not answered is not committed."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(5)
    handler = Echo(site.out, delay=30.0)
    async with running(site, handler, promise(broker), tmp_path, feed=site.feed(drain_seconds=0.5)) as app:
        await until(lambda: len(handler.open) == 5)
        start = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - start < 25, "the calls take 30 s"
    assert app.runtime.stats.left_at_drain == 5
    assert await site.committed() == {}
    for task in list(handler.open):
        task.cancel()


async def test_a_stalled_handler_pauses_reading(broker: LocalBroker, tmp_path: Path) -> None:
    """With every answer held, no more than the bound is read; half of it freed, reading goes on; others are not starved."""
    site = await make_site(broker.bootstrap, partitions=2)
    await site.produce(2000)
    handler = Echo(site.out, hold=lambda r: r.partition == 0)
    async with running(site, handler, promise(broker), tmp_path, feed=site.feed(bounds=Bounds(records=100))) as app:
        stats = app.runtime.stats
        await until(lambda: stats.frontiers.get(TopicPartition(site.source, 1)) == 1000)
        await asyncio.sleep(0.5)
        read = [o for p, o in handler.offered if p == 0]
        assert len(read) <= 150, "its share of 50, and what one fetch brings beyond"
        assert stats.pauses["records"] >= 1
        assert stats.paused == {(site.source, 0)}
        generation = app.consumer.generation()
        handler.hold = lambda r: False
        handler.let_go()
        await until(lambda: stats.frontiers.get(TopicPartition(site.source, 0)) == 1000)
        assert app.consumer.generation() == generation, "pausing does not cost the membership"
        assert max(len(handler.offered) - len(set(handler.offered)), 0) == 0


async def test_the_lag_grows_while_reading_is_paused(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives behind a paused partition is in its lag, although nothing of it is fetched."""
    monkeypatch.setattr(assignment, "_ENDS_EVERY", 0.2)
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(200)
    tp = TopicPartition(site.source, 0)
    handler = Echo(site.out, hold=lambda r: True)
    async with running(site, handler, promise(broker), tmp_path, feed=site.feed(bounds=Bounds(records=20))) as app:
        stats = app.runtime.stats
        await until(lambda: stats.paused == {tp})
        read = len(handler.offered)
        for i in range(200, 500, 10):
            await site.produce(10, first=i)
        await until(lambda: stats.lag()[tp] > 490)  # the embedded broker's answer can be short of the last batch, here of ten
        assert stats.lag()[tp] <= 500
        assert len(handler.offered) == read, "and it is still not read"


async def test_bytes_bound_reading(broker: LocalBroker, tmp_path: Path) -> None:
    """Large records pause reading long before the count does."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(60, size=50_000)
    handler = Echo(site.out, hold=lambda r: True)
    async with running(site, handler, promise(broker), tmp_path, feed=site.feed(bounds=Bounds(bytes=200_000))) as app:
        await until(lambda: app.runtime.stats.pauses["bytes"] == 1)
        await asyncio.sleep(0.5)
        assert len(handler.offered) < 60
        handler.hold = lambda r: False
        while app.runtime.stats.outcomes < 60:
            handler.let_go()
            await asyncio.sleep(0.05)


async def test_one_open_record_bounds_how_far_reading_runs_ahead(broker: LocalBroker, tmp_path: Path) -> None:
    """Thousands are decided behind a record that is not: reading stops at the span, and goes on once that record is through."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(4000)
    handler = Echo(site.out, hold=lambda r: r.offset == 0)
    async with running(site, handler, promise(broker), tmp_path, feed=site.feed(bounds=Bounds(span=400))) as app:
        stats = app.runtime.stats
        await until(lambda: stats.pauses["span"] >= 1 and stats.held_records == 1)
        await asyncio.sleep(0.5)
        assert stats.paused == {(site.source, 0)}
        assert len(handler.offered) < 3000, "the span, and what a fetch brings beyond"
        handler.hold = lambda r: False
        handler.let_go()
        await until(lambda: stats.outcomes == 4000)
        assert not stats.paused


async def test_metadata_that_grows_long_bounds_reading(broker: LocalBroker, tmp_path: Path) -> None:
    """Every second record stays open: reading stops before the done ranges no longer fit, and goes on when they are closed."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(600)
    handler = Echo(site.out, hold=lambda r: r.offset % 2 == 0)
    feed = site.feed(bounds=Bounds(metadata=600))
    async with running(site, handler, promise(broker), tmp_path, feed=feed) as app:
        stats = app.runtime.stats
        await until(lambda: stats.pauses["metadata"] >= 1)
        await site.produce(3000, first=600)
        await asyncio.sleep(1.0)
        assert stats.paused == {(site.source, 0)}
        assert len(handler.offered) <= 1600, "and what a fetch brings that was under way"
        assert stats.metadata_bytes_max <= 600
        handler.hold = lambda r: False
        handler.let_go()
        await until(lambda: stats.outcomes == 3600)
        assert not stats.paused


async def test_skips_gather_and_still_leave_a_receipt(broker: LocalBroker, tmp_path: Path) -> None:
    """A stream of skips is committed with receipts that name the rule, in far fewer commits than records."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(300)
    handler = Echo(site.out)
    handler.answer = lambda r: Finished(skip="odd") if r.offset % 2 else Finished(skip="even", part_skips=())
    async with running(site, handler, promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 300)
        assert app.runtime.stats.commits <= 5
    receipts = (await site.read_receipts())[0]
    odd = [r for receipt in receipts for r in receipt.skips["odd"]]
    assert sum(end - first for first, end in odd) == 150
    assert sum(r.decisions for r in receipts) == 0
    assert (await site.committed())[0][0] == 300


async def test_a_commit_gap_trades_latency_for_commits(broker: LocalBroker, tmp_path: Path) -> None:
    """With a gap of 0.4 s a trickle makes at most three commits a second, not one a record."""
    site = await make_site(broker.bootstrap, partitions=1)
    async with running(site, Echo(site.out), promise(broker), tmp_path, feed=site.feed(commit_gap=0.4)) as app:
        await until(lambda: app.runtime.stats.taken == 1)
        producer = AIOKafkaProducer(bootstrap_servers=site.bootstrap)
        await producer.start()
        start = asyncio.get_running_loop().time()
        for _ in range(20):
            await producer.send_and_wait(site.source, b"v", b"k", partition=0)
            await asyncio.sleep(0.05)
        await until(lambda: app.runtime.stats.outcomes >= 20)
        took = asyncio.get_running_loop().time() - start
        await producer.stop()
        assert app.runtime.stats.commits <= 2 + took / 0.4, f"in {took:.1f} s"


async def test_an_outbound_record_that_does_not_fit_is_refused_at_once(broker: LocalBroker, tmp_path: Path) -> None:
    """Nothing oversized is ever sent: the handler hears of it and finishes with something smaller; neighbours go through.

    What counts is what the topic takes by the broker's word, not what was configured here.
    """
    site = await make_site(broker.bootstrap, partitions=1, configs={"out": {"max.message.bytes": "2000"}})
    await site.produce(50)
    refused: list[int] = []

    class Big(Echo):
        def ask(self, slot: Any, index: int) -> None:
            record = slot.records[index]
            if record.offset == 7:
                try:
                    slot.partition.finish(slot, index, Finished((Outbound(self.out, b"k", b"x" * 3000, (), "decision"),)))
                except RecordTooLarge:
                    refused.append(record.offset)
            super().ask(slot, index)

    feed = site.feed(limits={site.out: 1_000_000})
    async with running(site, Big(site.out), promise(broker), tmp_path, feed=feed) as app:
        await until(lambda: app.runtime.stats.outcomes >= 50)
        assert app.runtime.stats.too_large == 1
    assert refused == [7]
    assert len(await origins(site)) == 50


async def test_a_partition_without_counterpart_waits_and_others_go_on(broker: LocalBroker, tmp_path: Path) -> None:
    """An outbound topic with one partition for a source of two: partition 1 is not read, and that is an alarm."""
    site = await make_site(broker.bootstrap, partitions=2, out_partitions=1)
    await site.produce(100)
    handler = Echo(site.out)
    async with running(site, handler, promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 50)
        assert app.runtime.stats.waiting == {(site.source, 1): site.out}
        assert {p for p, _ in handler.offered} == {0}


async def test_a_defect_of_the_handler_ends_it_without_a_commit(broker: LocalBroker, tmp_path: Path) -> None:
    """An exception out of the handler is told to whoever runs the process, and nothing is committed after it."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(10)
    told: list[BaseException] = []

    class Broken(Echo):
        def offer(self, slot: Any) -> None:
            super().offer(slot)
            raise RuntimeError("a defect")

    async with running(site, Broken(site.out), promise(broker), tmp_path, on_fatal=told.append) as app:
        await until(lambda: app.crashed)
    assert [repr(exc) for exc in told] == ["RuntimeError('a defect')"]
    assert app.runtime.parts == {}
    assert await site.committed() == {}


async def test_reading_back_gives_what_lies_behind(broker: LocalBroker, tmp_path: Path) -> None:
    """A partition taken at 60 can read its last 25 offsets again before its first record comes."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(60)
    async with running(site, Echo(site.out), promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 60)
    seen: list[int] = []
    handler = Echo(site.out)

    async def look(partition: Any) -> None:
        assert partition.start == 60
        assert partition.log_start == 0
        async for records in partition.read_back(25):
            seen.extend(r.offset for r in records)
        assert handler.offered == []

    handler.on_take = look
    async with running(site, handler, promise(broker), tmp_path) as app:
        await until(lambda: app.runtime.stats.taken == 1)
    assert seen == list(range(35, 60))


@pytest.mark.kafka
async def test_what_an_aborted_transaction_wrote_is_never_decided(kafka: LocalBroker, tmp_path: Path) -> None:
    """Aborted records are neither offered nor read back, and records of an open transaction wait for its commit."""
    site = await make_site(kafka.bootstrap, partitions=1)
    producer = AIOKafkaProducer(bootstrap_servers=site.bootstrap, transactional_id=f"{site.name}.upstream")
    await producer.start()

    async def write(text: str, times: int = 5) -> None:
        for _ in range(times):
            await producer.send_and_wait(site.source, text.encode(), partition=0)

    decided: list[bytes] = []
    handler = Echo(site.out)
    echo = handler.answer

    def answer(record: RawRecord) -> Finished:
        decided.append(record.value or b"")
        return echo(record)

    handler.answer = answer
    try:
        async with producer.transaction():
            await write("committed")
        await producer.begin_transaction()
        await write("aborted")
        await producer.abort_transaction()
        async with running(site, handler, "exactly-once", tmp_path / "1") as app:
            await until(lambda: len(decided) == 5)
            await producer.begin_transaction()
            await write("open")
            await until(lambda: app.runtime.stats.lag() != {})
            await asyncio.sleep(1.0)
            assert set(decided) == {b"committed"}
            await producer.abort_transaction()
            async with producer.transaction():
                await write("last")
            await until(lambda: app.runtime.stats.outcomes >= 10)
    finally:
        await producer.stop()
    assert decided == [b"committed"] * 5 + [b"last"] * 5

    behind: list[bytes | None] = []
    second = Echo(site.out)

    async def look_back(partition: Any) -> None:
        async for records in partition.read_back(1000):
            behind.extend(r.value for r in records)

    second.on_take = look_back
    async with running(site, second, "exactly-once", tmp_path / "2") as app:
        await until(lambda: app.runtime.stats.owned)
    assert behind == [b"committed"] * 5 + [b"last"] * 5


@pytest.mark.kafka
async def test_trimmed_input_is_told_and_counted(kafka: LocalBroker, tmp_path: Path) -> None:
    """Retention went past the committed position while nobody read: the receipt names the range, then reading goes on."""
    site = await make_site(kafka.bootstrap, partitions=1)
    await site.produce(100)
    async with running(site, Echo(site.out, hold=lambda r: r.offset >= 30 and r.offset != 35), "exactly-once", tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 31)
    await trim(site, 50)
    handler = Echo(site.out)
    async with running(site, handler, "exactly-once", tmp_path) as app:
        await until(lambda: app.runtime.stats.lag() == {(site.source, 0): 0} and app.runtime.stats.outcomes >= 50)
        assert app.runtime.stats.lost_offsets == 19
    assert handler.offered[0] == (0, 50)
    receipts = await site.read_receipts()
    assert chained(receipts)
    assert [r for receipt in receipts[0] for r in receipt.lost] == [(30, 35), (36, 50)]
    assert (await site.committed())[0][0] == 100


@pytest.mark.kafka
async def test_input_trimmed_under_a_paused_reader_is_told_too(kafka: LocalBroker, tmp_path: Path) -> None:
    """Retention overtakes a worker that is paused: what it held is published, what it had not read is named as lost."""
    site = await make_site(kafka.bootstrap, partitions=1)
    await site.produce(3000, size=1000)
    handler = Echo(site.out, hold=lambda r: True)
    async with running(site, handler, "exactly-once", tmp_path, feed=site.feed(bounds=Bounds(records=50))) as app:
        stats = app.runtime.stats
        await until(lambda: stats.paused)
        read = max(o for _, o in handler.offered) + 1
        await trim(site, 2990)
        handler.hold = lambda r: False
        handler.let_go()
        await until(lambda: stats.frontiers[TopicPartition(site.source, 0)] == 3000)
    lost = [r for receipt in (await site.read_receipts())[0] for r in receipt.lost]
    answered = {int(at.rsplit(b"/", 1)[1]) for at in await origins(site)}
    assert answered | {o for first, end in lost for o in range(first, end)} == set(range(3000))
    assert set(range(read)) <= answered, "what was read before is published although the log has dropped it"
    assert sum(end - first for first, end in lost) == stats.lost_offsets


@pytest.mark.kafka
async def test_metadata_that_is_not_ours_is_an_alarm_not_a_loss(kafka: LocalBroker, tmp_path: Path) -> None:
    """A person set the offset with a tool and a note: the worker starts there, without done ranges, and counts it."""
    site = await make_site(kafka.bootstrap, partitions=1)
    await site.produce(40)
    admin = AIOKafkaAdminClient(bootstrap_servers=site.bootstrap)
    await admin.start()
    await admin.close()
    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import OffsetAndMetadata

    consumer = AIOKafkaConsumer(bootstrap_servers=site.bootstrap, group_id=f"{site.name}.group", enable_auto_commit=False)
    await consumer.start()
    tp = KafkaTopicPartition(site.source, 0)
    consumer.assign([tp])
    await consumer.commit({tp: OffsetAndMetadata(15, "1.a.note.of.mine")})
    await consumer.stop()
    handler = Echo(site.out)
    async with running(site, handler, "exactly-once", tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= 25)
        assert app.runtime.stats.damaged_metadata == 1
    assert handler.asked[0] == (0, 15)
    offset, text = (await site.committed())[0]
    assert decode(offset, text).state == "ok"


async def trim(site: Site, before: int) -> None:
    """What retention does: the log of partition 0 now begins at `before`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=site.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({KafkaTopicPartition(site.source, 0): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


def test_coordinates_are_spelled_alike() -> None:
    """The test's own two spellings of a record's place agree."""
    from topics.record import Raw

    assert where(Raw("t", b"", partition=1, offset=2)) == b"t/1/2"
