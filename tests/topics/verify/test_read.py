"""Verification of topics on real brokers: what a worker would have written, and a few violations seeded into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from schemas.dead_letter import DeadLetter
from schemas.errors import TopicError
from schemas.identity import decision_id, input_hash
from schemas.receipt import Receipt
from tests.support.kafka import create_topic
from topics.dev_broker import ApacheKafka, LocalBroker
from topics.progress import encode
from topics.verify import parse
from topics.verify.read import Target, shapes, verify_agent

AGENT = "credit-risk"


@dataclass
class Scene:
    """Topics of one agent with two partitions, and what a worker publishes to them."""

    bootstrap: str
    target: Target
    producer: AIOKafkaProducer
    promise: str = "exactly-once"

    async def send(self, topic: str, partition: int, value: bytes | None, **rest: Any) -> int:
        """One record, confirmed; its offset."""
        offset: int = (await self.producer.send_and_wait(topic, value, partition=partition, **rest)).offset
        return offset

    async def inputs(self, partition: int, count: int) -> None:
        """Input records `{"n": offset}`."""
        for n in range(count):
            await self.send(self.target.source, partition, b'{"n":%d}' % n)

    def ids(self, partition: int, offset: int) -> tuple[str, str]:
        """Input hash and decision id of an input record."""
        value_hash = input_hash(b'{"n":%d}' % offset)
        return value_hash, decision_id(AGENT, self.target.source, partition, offset, value_hash, 0, "live")

    async def decide(self, partition: int, offset: int, *, into: int | None = None) -> None:
        """A decision as the engine writes it, as far as verification looks."""
        value_hash, made = self.ids(partition, offset)
        source = {"topic": self.target.source, "partition": partition, "offset": offset, "input_hash": value_hash}
        body = {"id": made, "agent": AGENT, "run": "live", "part": 0, "parts": 1, "source": source}
        await self.send(self.target.decisions, partition if into is None else into, orjson.dumps(body), key=b"k")

    async def bury(self, partition: int, offset: int, value: bytes | None = None) -> None:
        """A dead letter: the input's own bytes, and headers that say what it is."""
        value_hash, made = self.ids(partition, offset)
        said = DeadLetter(
            id=made, agent=AGENT, version=1, stage="decode", reason="not-json", topic=self.target.source, partition=partition,
            offset=offset, input_hash=value_hash, at="2026-11-23T12:00:00.000Z",
        )  # fmt: skip
        headers = [("headrace_offset", b"999")]  # one that the input brought along
        headers += [(f"headrace_{k}", str(v).encode()) for k, v in said if v is not None]
        await self.send(self.target.dead_letters, partition, value or b'{"n":%d}' % offset, headers=headers)

    async def receipt(self, partition: int, seq: int, first: int, to: int, **rest: Any) -> None:
        """A receipt for [first, to)."""
        base: dict[str, Any] = {"closed": [(first, to)], "decisions": to - first}
        made = Receipt(
            agent=AGENT, version=1, promise=self.promise, topic=self.target.source, partition=partition, seq=seq,
            from_=first, to=to, worker="w", at="2026-11-23T12:00:00.000Z", **(base | rest),
        )  # fmt: skip
        await self.send(self.target.receipts, partition, made.model_dump_json(by_alias=True).encode())

    async def commit(self, partition: int, offset: int, metadata: str = "") -> None:
        """The group's offset."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=self.target.group, enable_auto_commit=False)
        await consumer.start()
        tp = TopicPartition(self.target.source, partition)
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(offset, metadata)})
        await consumer.stop()

    async def work(self) -> None:
        """Two partitions: 0 with six records in two commits (decisions, a dead letter, a skip), 1 with two and one pending."""
        await self.inputs(0, 6)
        await self.inputs(1, 3)
        for offset in (0, 1, 2):
            await self.decide(0, offset)
        await self.receipt(0, 1, 0, 3)
        await self.decide(0, 3)
        await self.bury(0, 4)
        await self.receipt(0, 2, 3, 6, decisions=1, dead_letters=1, skips={"closed-loan": [(5, 6)]})
        await self.commit(0, 6, encode(6, 2, []))
        await self.decide(1, 0)
        await self.decide(1, 1)
        await self.receipt(1, 1, 0, 2)
        await self.commit(1, 2, encode(2, 1, []))


def target(stem: str, names: list[str]) -> Target:
    """What to verify, from the names of its four topics."""
    source, decisions, dead_letters, receipts = names
    return Target(AGENT, source, decisions, dead_letters, receipts, f"{stem}.group")


@pytest.fixture
async def scene(broker: LocalBroker, topic: Callable[..., str]) -> Any:
    """A scene on a real broker."""
    stem = topic("verify")
    names = [f"{stem}.{part}" for part in ("loans", "decisions", "dlq", "receipts")]
    for name in names:
        await create_topic(broker.bootstrap, name, 2)
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    yield Scene(broker.bootstrap, target(stem, names), producer)
    await producer.stop()


async def test_what_a_worker_writes_is_accounted_for(scene: Scene) -> None:
    """Inputs, outcomes, receipts and offsets as they are on the topics give an account without offenders."""
    await scene.work()
    account = await verify_agent({"bootstrap_servers": scene.bootstrap}, scene.target)
    assert account.all_offenders == []
    totals = account.totals
    assert (totals.records, totals.decisions, totals.dead_letters, totals.skips) == (8, 6, 1, 1)
    assert (totals.unaccounted, totals.pending, totals.receipts) == (0, 1, 3)
    assert [p.committed for p in account.partitions] == [6, 2]
    assert account.strict_ok


async def test_seeded_violations_are_found_on_the_topics(scene: Scene) -> None:
    """A repeat, an outcome in the wrong partition, altered bytes, a record that is no receipt: each is named where it lies."""
    await scene.work()
    await scene.decide(0, 3)
    await scene.decide(0, 2, into=1)
    await scene.bury(1, 2, b"other bytes")
    await scene.send(scene.target.receipts, 1, b"not json")
    await scene.send(scene.target.decisions, 1, b"[]")
    await scene.commit(1, 3, encode(3, 2, []))
    account = await verify_agent({"bootstrap_servers": scene.bootstrap}, scene.target)
    found = {(o.kind, o.topic.rpartition(".")[2], o.partition, o.offset) for o in account.all_offenders}
    assert found == {
        ("repeated", "decisions", 0, 4),
        ("wrong_partition", "decisions", 1, 2),
        ("altered", "dlq", 1, 0),
        ("unreceipted", "loans", 1, 2),
        ("unreadable", "receipts", 1, 1),
        ("unreadable", "decisions", 1, 3),
        ("offset_ahead", "loans", 1, 2),
    }
    assert not account.ok


async def test_a_source_that_does_not_exist_is_said_and_not_created(scene: Scene) -> None:
    """A typing mistake in a topic name is an error that names the topic, and verification creates nothing."""
    wrong = replace(scene.target, source="no-such-topic")
    with pytest.raises(TopicError, match="no-such-topic does not exist"):
        await verify_agent({"bootstrap_servers": scene.bootstrap}, wrong)
    found = await shapes({"bootstrap_servers": scene.bootstrap}, ["no-such-topic", scene.target.source])
    assert (found["no-such-topic"].partitions, found[scene.target.source].partitions) == ((), (0, 1))


async def test_an_agent_that_never_ran_owes_nothing(scene: Scene) -> None:
    """Input without receipts is pending, and topics that do not exist yet are empty ones."""
    await scene.inputs(0, 4)
    fresh = replace(scene.target, decisions="not-yet", dead_letters="not-yet-dlq", receipts="not-yet-receipts")
    account = await verify_agent({"bootstrap_servers": scene.bootstrap}, fresh)
    assert account.ok
    assert (account.totals.records, account.totals.pending) == (0, 4)
    assert any("not-yet has 0 partitions" in note for note in account.notes)


@pytest.mark.kafka
async def test_aborted_and_open_transactions_are_no_outcomes(kafka: ApacheKafka, topic: Callable[..., str]) -> None:
    """Read committed: what an aborted or still open transaction holds does not count, and transaction markers are no records."""
    stem = topic("verify")
    names = [f"{stem}.{part}" for part in ("loans", "decisions", "dlq", "receipts")]
    for name in names:
        await create_topic(kafka.bootstrap, name, 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=stem)
    await producer.start()
    scene = Scene(kafka.bootstrap, target(stem, names), producer)
    try:
        async with producer.transaction():
            await scene.inputs(0, 2)
        async with producer.transaction():
            await scene.decide(0, 0)
            await scene.decide(0, 1)
            await scene.receipt(0, 1, 0, 2)
            at = {TopicPartition(names[0], 0): OffsetAndMetadata(2, encode(2, 1, []))}
            await producer.send_offsets_to_transaction(at, scene.target.group)
        await producer.begin_transaction()
        await scene.decide(0, 1)
        await producer.abort_transaction()
        account = await verify_agent({"bootstrap_servers": kafka.bootstrap}, scene.target)
        assert account.all_offenders == []
        assert (account.totals.decisions, account.totals.repeated, account.notes) == (2, 0, [])
        await producer.begin_transaction()
        await scene.decide(0, 1)
        account = await verify_agent({"bootstrap_servers": kafka.bootstrap}, scene.target)
        assert account.ok
        assert any("open transactions" in note for note in account.notes)
        await producer.abort_transaction()
    finally:
        await producer.stop()


# ---- parsing -----------------------------------------------------------------------------------------------------------------
@dataclass
class Row:
    """A record as far as parsing looks."""

    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "t"
    partition: int = 0
    offset: int = 5
    timestamp: int = 0
    key: bytes | None = None


NONSENSE = [None, b"", b"[]", b"{}", b"null", b'{"source":{}}', b'{"source":7}', b"\xff", b'{"source":{},"id":1}']


@pytest.mark.parametrize("value", NONSENSE)
def test_whatever_lies_on_a_topic_is_read_or_named(value: bytes | None) -> None:
    """Parsing never raises; it says why a record is not what its topic is for."""
    for read in (parse.decision, parse.receipt, parse.dead_letter):
        found = read(Row(value))
        assert isinstance(found, str)
        assert "not a" in found


def test_numbers_in_headers_are_bounded() -> None:
    """A dead letter with a number of a thousand digits is unreadable, not slow."""
    headers = tuple((f"headrace_{name}", b"9" * 1000) for name in ("id", "agent", "topic", "input_hash", "partition", "offset"))
    assert isinstance(parse.dead_letter(Row(b"", headers)), str)
