"""Verification of topics on real brokers: what a worker would have written, and a few violations seeded into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from schemas.errors import TopicError
from tests.support.kafka import create_topic
from tests.support.scenes import Scene
from topics.dev_broker import ApacheKafka, LocalBroker
from topics.progress import encode
from topics.verify import parse
from topics.verify.read import Target, shapes, verify_agent

AGENT = "credit-risk"


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


def labelled(key: bytes | None, **headers: bytes) -> Row:
    """A decision about Zoë under a key and headers."""
    body = {"id": "d1", "agent": "a", "part": 0, "parts": 1, "subject": {"type": "customer", "id": "Zoë"},
            "source": {"topic": "s", "partition": 0, "offset": 0, "input_hash": "00"}}  # fmt: skip
    return Row(orjson.dumps(body), tuple(headers.items()), key=key)


@pytest.mark.parametrize(
    ("record", "label"),
    [
        (labelled("Zoë".encode(), ce_id=b"d1", ce_subject="Zoë".encode()), None),
        (labelled("Zoë".encode()), None),
        (labelled(b"another"), "its key is not its subject's id"),
        (labelled(None), "its key is not its subject's id"),
        (labelled("Zoë".encode(), ce_subject=b"another"), "its header ce_subject is not what its body says"),
        (labelled("Zoë".encode(), ce_id=b"d2"), "its header ce_id is not what its body says"),
    ],
)
def test_key_and_headers_of_a_decision_are_held_against_its_body(record: Row, label: str | None) -> None:
    """They are in no digest, and a subscriber may go by them."""
    found = parse.decision(record)
    assert not isinstance(found, str)
    assert found.label == label


@pytest.mark.parametrize(
    ("key", "value", "sound"),
    [
        (b"d1", b'{"schema":"s","decision_id":"d1"}', True),
        (b"d1", b'{"schema": "s", "decision_id": "d1"}', True),
        (b"d2", b'{"schema":"s","decision_id":"d1"}', False),
        (None, b'{"schema":"s","decision_id":"d1"}', False),
        (b"d2", b"no judgement", True),
    ],
)
def test_the_key_of_a_judgement_is_held_against_its_body(key: bytes | None, value: bytes, sound: bool) -> None:
    """Its key is what erases it, so it has to be its decision's id; what can not be read is for the digests to tell."""
    assert (parse.judgement_label(Row(value, key=key)) is None) == sound


def test_numbers_in_headers_are_bounded() -> None:
    """A dead letter with a number of a thousand digits is unreadable, not slow."""
    headers = tuple((f"headrace_{name}", b"9" * 1000) for name in ("id", "agent", "topic", "input_hash", "partition", "offset"))
    assert isinstance(parse.dead_letter(Row(b"", headers)), str)
