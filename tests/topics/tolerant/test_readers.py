"""Every reader of this repository on real brokers, before a batch in which one record has a header name that is no UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition

from schemas.receipt import Receipt
from tests.support.header_names import Foreign, produce_foreign, seen
from tests.support.kafka import create_topic
from tests.support.reference import body, following, name
from tests.support.scenes import Scene
from topics.dev_broker import LocalBroker
from topics.ends import end_offsets
from topics.handover import TopicPartition
from topics.transport.read_back import last_receipt, read_back, receipt_key
from topics.verify.read import Target, verify_agent

HEADERS = ((b"fine", b"1"), (b"\xff\xfe\x80", b"2"), (b"fine", None))
BAD = Foreign(b"k", b"v", HEADERS)


@pytest.fixture
async def made(broker: LocalBroker, topic: Callable[..., str]) -> str:
    """A topic of one partition."""
    return await create_topic(broker.bootstrap, topic("foreign"), 1)


async def test_reading_back_gives_every_record(broker: LocalBroker, made: str) -> None:
    """What lies behind comes whole and in order: windows are made of it."""
    records = [Foreign(b"a", b"1"), BAD, Foreign(None, None, ((b"", b""),)), BAD]
    assert await produce_foreign(broker.bootstrap, made, records) == 0
    found = [r async for some in read_back({"bootstrap_servers": broker.bootstrap}, TopicPartition(made, 0), 1, 4) for r in some]
    assert [(r.offset, *seen(r)) for r in found] == [(at, *records[at].read) for at in (1, 2, 3)]


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_the_end_behind_such_a_record_is_found(broker: LocalBroker, made: str, isolation: Any) -> None:
    """Asking where a partition ends may read its last batch."""
    await produce_foreign(broker.bootstrap, made, [Foreign(b"a", b"1"), BAD, BAD])
    tp = KafkaTopicPartition(made, 0)
    assert await end_offsets({"bootstrap_servers": broker.bootstrap}, [tp], isolation=isolation) == {tp: 3}


async def test_the_last_receipt_is_found_behind_such_a_record(broker: LocalBroker, made: str) -> None:
    """A record of somebody else's among the receipts keeps nobody from starting."""
    source = TopicPartition("loans", 0)
    receipt = Receipt(
        agent="a", version=1, promise="at-least-once", topic="loans", partition=0, seq=4, from_=0, to=2, closed=[(0, 2)],
        decisions=2, worker="w", at="2026-11-23T12:00:00.000Z",
    )  # fmt: skip
    ours = Foreign(receipt_key(source), receipt.model_dump_json(by_alias=True).encode())
    await produce_foreign(broker.bootstrap, made, [BAD, ours, BAD])
    assert await last_receipt({"bootstrap_servers": broker.bootstrap}, made, source) == receipt


async def test_a_reference_table_keeps_the_rows_around_it(broker: LocalBroker, made: str, tmp_path: Path) -> None:
    """The table gets ready with the neighbours, and goes on from its store before such a record."""
    (one, first), (three, third) = body(1), body(3, "c")
    await produce_foreign(broker.bootstrap, made, [Foreign(one, first), BAD, Foreign(three, third)])
    for _ in range(2):
        async with following(broker, made, tmp_path) as table:
            assert [name(table.get(1)), name(table.get(3))] == ["a", "c"]


async def test_verification_accounts_for_such_a_record(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """It is an input like any other, and a record like it in a topic of ours is told as none of ours."""
    stem = topic("verify")
    loans, decisions, dlq, receipts = [f"{stem}.{part}" for part in ("loans", "decisions", "dlq", "receipts")]
    for one in (loans, decisions, dlq, receipts):
        await create_topic(broker.bootstrap, one, 2)
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    try:
        scene = Scene(broker.bootstrap, Target("credit-risk", loans, decisions, dlq, receipts, f"{stem}.group"), producer)
        inputs = [Foreign(None, b'{"n":%d}' % n, HEADERS if n == 1 else ()) for n in range(3)]
        await produce_foreign(broker.bootstrap, scene.target.source, inputs)
        await scene.decide(0, 0)
        await scene.bury(0, 1)
        await scene.decide(0, 2)
        await scene.receipt(0, 1, 0, 3, decisions=2, dead_letters=1)
        await scene.commit(0, 3)
        account = await verify_agent({"bootstrap_servers": broker.bootstrap}, scene.target)
        assert account.strict_ok
        assert (account.totals.records, account.totals.decisions, account.totals.dead_letters) == (3, 2, 1)
        await produce_foreign(
            broker.bootstrap, scene.target.dead_letters, [Foreign(b"x", b"y", (*HEADERS, (b"headrace_id", None)))]
        )
        account = await verify_agent({"bootstrap_servers": broker.bootstrap}, scene.target)
        assert [offender.kind for offender in account.all_offenders] == ["unreadable"]
    finally:
        await producer.stop()
