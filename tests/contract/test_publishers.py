"""One suite over both publishers and both brokers: what topics/publish/contract.py promises.

Exactly once runs on Apache Kafka only (the embedded broker has no transactions), at least once on both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import MessageSizeTooLargeError

from schemas.errors import BrokerError, Fenced, OutcomeUnknown, RecordTooLarge
from tests.support.transport import Site, make_site
from topics.dev_broker import ApacheKafka, LocalBroker
from topics.handover import Outbound, TopicPartition
from topics.publish import producer
from topics.publish.at_least_once import AtLeastOnce
from topics.publish.contract import CHECKPOINTS, Position, Publisher, Publishing
from topics.publish.transactional import Transactional
from topics.transport.membership import Membership


@dataclass
class Bench:
    """A publishing with a member of the group that owns the source partitions."""

    site: Site
    publishing: Publishing
    group: Membership
    consumer: Any
    checkpoints: list[str]
    broker: LocalBroker

    @property
    def tp(self) -> TopicPartition:
        """The source partition."""
        return TopicPartition(self.site.source, 1)

    def decision(self, text: str, size: int = 0) -> Outbound:
        """One outbound record."""
        return Outbound(self.site.out, b"k", text.encode() + b"x" * size, (("id", text.encode()),), "decision")

    def receipt(self, text: str) -> Outbound:
        """Its receipt."""
        return Outbound(self.site.receipts, b"r", text.encode(), (), "audit")

    async def make_topic(self, name: str, configs: dict[str, str]) -> str:
        """One more outbound topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.site.bootstrap)
        await admin.start()
        try:
            topic = NewTopic(f"{self.site.name}.{name}", self.site.partitions, 1, topic_configs=configs)
            await admin.create_topics([topic])
        finally:
            await admin.close()
        return f"{self.site.name}.{name}"

    async def position(self) -> Position | None:
        """What is committed, without waiting: right after a commit returns it is told."""
        return await self.group.committed(self.tp)

    async def said(self) -> list[str]:
        """Ids that a committed reader sees, in order."""
        return [dict(r.headers)["id"].decode() for r in await self.site.read(self.site.out)]


@pytest.fixture(
    params=[
        ("at-least-once", "embedded"),
        pytest.param(("at-least-once", "kafka"), marks=pytest.mark.kafka),
        pytest.param(("exactly-once", "kafka"), marks=pytest.mark.kafka),
    ],
    ids="-".join,
)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A member that owns both partitions of a new site."""
    promise, kind = request.param
    broker: LocalBroker = request.getfixturevalue(kind)
    site = await make_site(broker.bootstrap)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=site.bootstrap,
        group_id=f"{site.name}.group",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        rebalance_timeout_ms=2000,
    )
    await consumer.start()
    consumer.subscribe([site.source])
    while not consumer.assignment():
        await consumer.getmany(timeout_ms=100)
    loop = asyncio.get_running_loop()
    group = Membership(lambda: consumer, lambda: loop)
    connection = {"bootstrap_servers": site.bootstrap}
    checkpoints: list[str] = []
    publishing: Publishing
    if promise == "exactly-once":
        publishing = Transactional(connection, f"{site.name}.group", limits={}, checkpoint=checkpoints.append)
    else:
        publishing = AtLeastOnce(connection, group, limits={}, checkpoint=checkpoints.append)
    assert publishing.promise == promise
    yield Bench(site, publishing, group, consumer, checkpoints, broker)
    await consumer.stop()


async def test_all_of_a_commit_is_there_when_publish_returns(bench: Bench) -> None:
    """Records in order on the partition number of the source, the receipt, and the position with its metadata."""
    publisher = await bench.publishing.open(bench.tp)
    await publisher.publish([bench.decision(f"d{i}") for i in range(300)], bench.receipt("r"), Position(42, "text"))
    records = await bench.site.read(bench.site.out)
    assert [dict(r.headers)["id"].decode() for r in records] == [f"d{i}" for i in range(300)]
    assert {r.partition for r in records} == {1}
    assert [r.value for r in await bench.site.read(bench.site.receipts)] == [b"r"]
    found = await bench.position()
    assert found is not None
    assert found.offset == 42
    assert found.metadata in ("", "text")
    assert bench.checkpoints == [c for c in CHECKPOINTS if c.startswith("publish.")]
    await publisher.discard()


async def test_nothing_is_committed_before_the_first_publish(bench: Bench) -> None:
    """Opening alone leaves the group where it was."""
    publisher = await bench.publishing.open(bench.tp)
    assert await bench.group.committed(bench.tp) is None
    await publisher.discard()


async def test_many_batches_keep_their_order(bench: Bench) -> None:
    """More bytes than one batch holds leave in the order given."""
    publisher = await bench.publishing.open(bench.tp)
    await publisher.publish([bench.decision(f"d{i}", 5000) for i in range(100)], bench.receipt("r"), Position(1, ""))
    assert await bench.said() == [f"d{i}" for i in range(100)]
    await publisher.discard()


@pytest.mark.kafka
async def test_a_commit_costs_one_request_of_each_kind(kafka: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions of 300 KB and their receipt: their partitions are added together, and produced together."""
    site = await make_site(kafka.bootstrap)
    publishing = Transactional({"bootstrap_servers": site.bootstrap}, f"{site.name}.group", limits={})
    publisher = await publishing.open(TopicPartition(site.source, 1))
    decisions = [Outbound(site.out, b"k", b"x" * 1000, (), "decision") for _ in range(300)]
    receipt = Outbound(site.receipts, b"r", b"r", (), "audit")
    await publisher.publish(decisions, receipt, Position(1, ""))  # finds the coordinators and the topics
    sent: list[str] = []
    send = AIOKafkaClient.send

    async def counted(self: Any, node: Any, request: Any, **options: Any) -> Any:
        sent.append(type(request).__name__)
        return await send(self, node, request, **options)

    monkeypatch.setattr(AIOKafkaClient, "send", counted)
    await asyncio.sleep(0.5)  # the markers of the first are written: nothing is sent again for them
    sent.clear()
    await publisher.publish(decisions, receipt, Position(2, ""))
    await publisher.discard()
    kinds = ("AddPartitionsToTxnRequest", "ProduceRequest", "AddOffsetsToTxnRequest", "TxnOffsetCommitRequest", "EndTxnRequest")
    assert {kind: sent.count(kind) for kind in kinds} == dict.fromkeys(kinds, 1)


async def test_a_commit_without_records_still_leaves_its_receipt(bench: Bench) -> None:
    """Skips publish nothing, yet their receipt and position are committed."""
    publisher = await bench.publishing.open(bench.tp)
    await publisher.publish([], bench.receipt("skips"), Position(9, "m"))
    await publisher.publish([], bench.receipt("more"), Position(11, "m"))
    assert [r.value for r in await bench.site.read(bench.site.receipts)] == [b"skips", b"more"]
    assert (await bench.position() or Position(0, "")).offset == 11
    await publisher.discard()


async def test_a_probe_says_whether_the_position_is_ours(bench: Bench) -> None:
    """Unchanged: no complaint. Moved by another: Fenced."""
    publisher = await bench.publishing.open(bench.tp)
    mine = Position(5, "mine")
    await publisher.publish([], bench.receipt("r"), mine)
    await publisher.probe(mine)
    other = await bench.publishing.open(bench.tp)
    await other.publish([], bench.receipt("r"), Position(6, "theirs"))
    with pytest.raises(Fenced):
        await publisher.probe(mine)
    await publisher.discard()
    await other.discard()


async def test_a_batch_that_the_broker_refuses_moves_no_position(bench: Bench) -> None:
    """A topic takes less than was configured: one of its batches is refused, and neither position nor receipt is committed."""
    if not isinstance(bench.broker, ApacheKafka):
        pytest.skip("the embedded broker has no max.message.bytes")
    narrow = await bench.make_topic("narrow", {"max.message.bytes": "3000"})
    publisher = await bench.publishing.open(bench.tp)
    await publisher.publish([bench.decision("before")], bench.receipt("r"), Position(3, "m"))
    large = Outbound(narrow, b"k", b"x" * 20_000, (("id", b"large"),), "decision")
    with pytest.raises(RecordTooLarge, match="refuses a batch for its size"):
        await publisher.publish([bench.decision("beside"), large], bench.receipt("never"), Position(9, "m"))
    await publisher.discard()
    successor = await bench.publishing.open(bench.tp)
    found = await bench.position()
    assert found is not None
    assert found.offset == 3
    assert [r.value for r in await bench.site.read(bench.site.receipts)] == [b"r"]
    if bench.publishing.promise == "exactly-once":
        assert await bench.said() == ["before"], "nor is anything of the transaction seen"
    await successor.discard()


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_failed_batch_is_told_whichever_it_is(failing: int) -> None:
    """Of the batches that were handed over one was not taken: sending raises, though the others were."""

    class Producer:
        sent = 0

        def create_batch(self) -> Any:
            return SimpleNamespace(append=lambda **record: True, close=lambda: None)

        async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
            future = asyncio.get_running_loop().create_future()
            if self.sent == failing:
                future.set_exception(MessageSizeTooLargeError())
            else:
                future.set_result(None)
            self.sent += 1
            return future

    records = [Outbound(topic, b"k", b"v", (), "decision") for topic in ("one", "two", "three")]
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send(Producer(), records, 0, {})


async def test_outcomes_are_confirmed_before_the_position_is_committed(bench: Bench) -> None:
    """At each step of a commit the broker has what the step before promised: no position without its outcomes."""
    if bench.publishing.promise == "exactly-once":
        pytest.skip("in one transaction there is no order to see")
    publisher = await bench.publishing.open(bench.tp)
    steps: list[str] = []
    commit, send = bench.group.commit, producer.send

    async def committing(tp: TopicPartition, position: Position) -> None:
        steps.append("position")
        await commit(tp, position)

    async def sending(sender: Any, records: Any, partition: int, limits: Any) -> None:
        await send(sender, records, partition, limits)
        steps.append(f"confirmed {records[0].topic}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.group, "commit", committing)
        patch.setattr(producer, "send", sending)
        await publisher.publish([bench.decision("d")], bench.receipt("r"), Position(4, ""))
    assert steps == [f"confirmed {bench.site.out}", f"confirmed {bench.site.receipts}", "position"]
    await publisher.discard()


async def test_after_a_fence_nothing_more_is_seen(bench: Bench) -> None:
    """A successor has opened, or the membership has ended: publishing raises, and neither record nor position appears."""
    publisher = await bench.publishing.open(bench.tp)
    await publisher.publish([bench.decision("before")], bench.receipt("r"), Position(3, ""))
    successor: Publisher | None = None
    if bench.publishing.promise == "exactly-once":
        successor = await bench.publishing.open(bench.tp)
        expected: type[BrokerError] = Fenced
    else:
        await bench.consumer.stop()
        expected = OutcomeUnknown
    with pytest.raises(expected):
        await publisher.publish([bench.decision("zombie")], bench.receipt("z"), Position(1, ""))
    await publisher.discard()
    if successor is not None:
        await successor.discard()
    assert await bench.said() == ["before"]
    assert (await bench.site.committed())[1][0] == 3


async def test_a_left_member_can_not_move_the_position_back(bench: Bench) -> None:
    """The broker would believe it (generation -1); the Group refuses in the same step."""
    await bench.group.commit(bench.tp, Position(30, ""))
    await bench.consumer.stop()
    with pytest.raises(Fenced, match="not a member"):
        await bench.group.commit(bench.tp, Position(10, ""))
    assert (await bench.site.committed())[1][0] == 30


async def test_a_discarded_publisher_sends_nothing_more(bench: Bench) -> None:
    """Dropped in the middle of publishing: whatever it raised, the position did not move, and it can be dropped twice."""
    publisher = await bench.publishing.open(bench.tp)
    await publisher.publish([], bench.receipt("r"), Position(1, ""))
    records = [bench.decision(f"d{i}", 900_000) for i in range(20)]
    task = asyncio.create_task(publisher.publish(records, bench.receipt("never"), Position(99, "")))
    await asyncio.sleep(0.01)
    await publisher.discard()
    await publisher.discard()
    task.cancel()
    with pytest.raises((asyncio.CancelledError, BrokerError)):
        await task
    found = await bench.position()
    assert found is not None
    assert found.offset == 1
    if bench.publishing.promise == "exactly-once":
        successor = await bench.publishing.open(bench.tp)
        assert await bench.said() == [], "the open transaction was aborted, and the reader is not held up"
        await successor.discard()


async def test_a_broker_that_can_not_be_reached_is_an_unknown_outcome(bench: Bench) -> None:
    """Opening against a closed port says so within its timeout."""
    closed = {"bootstrap_servers": "127.0.0.1:1"}
    publishing: Publishing
    if bench.publishing.promise == "exactly-once":
        publishing = Transactional(closed, "g", limits={}, timeout=1.0)
    else:
        publishing = AtLeastOnce(closed, bench.group, limits={}, timeout=1.0)
    with pytest.raises(OutcomeUnknown):
        await publishing.open(bench.tp)


@pytest.mark.kafka
async def test_offsets_of_an_open_transaction_are_not_taken(kafka: LocalBroker) -> None:
    """A predecessor stopped after sending offsets: its successor reads the position from before that transaction."""
    site = await make_site(kafka.bootstrap)
    tp = TopicPartition(site.source, 0)
    stuck = asyncio.Event()

    class Died(BaseException):
        """Leaves every except clause of ours, as if the process had gone."""

    def die(name: str) -> None:
        if name == "publish.commit.before" and stuck.is_set():
            raise Died

    publishing = Transactional({"bootstrap_servers": site.bootstrap}, f"{site.name}.group", limits={}, checkpoint=die)
    first = await publishing.open(tp)
    out = Outbound(site.out, b"k", b"v", (), "decision")
    proof = Outbound(site.receipts, b"k", b"v", (), "audit")
    await first.publish([out], proof, Position(5, "five"))
    stuck.set()
    with pytest.raises(Died):
        await first.publish([out], proof, Position(9, "nine"))
    second = await publishing.open(tp)
    assert (await site.committed())[0] == (5, "five")
    assert len(await site.read(site.out)) == 1
    await second.discard()
    await first.discard()


async def test_the_size_we_compute_is_an_upper_bound(embedded: LocalBroker) -> None:
    """The bound we compute is never below what aiokafka needs: no batch that passes our check is refused for its size."""
    from topics.publish.sizes import BATCH_OVERHEAD, record_size

    plain = AIOKafkaProducer(bootstrap_servers=embedded.bootstrap)
    await plain.start()
    try:
        for key, value, headers in [
            (None, None, []),
            (b"k" * 300, b"v" * 70_000, [("a" * 200, b"b" * 300), ("é" * 100, b"")]),
            (b"", b"", [("h", b"1")] * 50),
        ]:
            batch = plain.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
            batch.close()
            assert len(batch._build()) <= BATCH_OVERHEAD + record_size(key, value, headers)
    finally:
        await plain.stop()
