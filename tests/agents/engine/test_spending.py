"""What a partition has cost today, found by whoever takes it: from its last receipt, and the calls that ended since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from agents.engine.spending import Spending
from models.budget.budget import Budget
from schemas.audit import Call
from schemas.receipt import Receipt
from schemas.wire import rfc3339
from tests.support.kafka import create_topic, produce
from topics.dev_broker import LocalBroker
from topics.handover import TopicPartition
from topics.transport.read_back import receipt_key

NOON_MS = 1_760_011_200_000
DAY = "2025-10-09"


@dataclass
class Owned:
    """As much of an owned partition as spending looks at."""

    tp: TopicPartition
    topic_partitions: int = 2


def at(seconds: float) -> str:
    """So many seconds after that noon."""
    stamp = rfc3339(NOON_MS + int(seconds * 1000))
    assert stamp is not None
    return stamp


def call(name: str, seconds: float, cost: int | None, **changes: Any) -> bytes:
    """A call of tenant "bank" about three records of partition 0 and one of partition 1."""
    given: dict[str, Any] = {
        "call_id": name, "agent": "a", "endpoint": "e", "model_requested": "m", "status": "ok", "request_hash": "00",
        "done_at": at(seconds), "cost_micro": cost, "currency": "USD", "partitions": {"0": 3, "1": 1}, "tenant": "bank",
    } | changes  # fmt: skip
    return Call(**given).model_dump_json(by_alias=True).encode()


def receipt(source: TopicPartition, seconds: float, spend: dict[str, int]) -> bytes:
    """A receipt of the partition, written so many seconds after noon."""
    return Receipt(
        agent="a", version=1, promise="exactly-once", topic=source.topic, partition=source.partition, seq=1, from_=0, to=1,
        worker="w", at=at(seconds), spend=spend,
    ).model_dump_json(by_alias=True).encode()  # fmt: skip


async def taken(broker: LocalBroker, source: TopicPartition, receipts: str, calls: str, day: str = DAY) -> int:
    """What a worker that takes the partition believes to have been spent on the day."""
    budget = Budget(10_000)
    spending = Spending(
        budget, tenant="bank", connection={"bootstrap_servers": broker.bootstrap}, receipts=receipts, calls=calls, day=lambda: day
    )
    await spending.take(Owned(source))  # type: ignore[arg-type]  # as much of one as is looked at
    assert budget.allowance(source.partition) == 5000
    return budget.spent(source.partition).get(day, 0)


def odd(**changes: Any) -> bytes:
    """A call that no worker writes."""
    return orjson.dumps(orjson.loads(call("odd", 11, 400)) | changes)


@pytest.mark.parametrize(
    "changes",
    [{"cost_micro": -(10**12)}, {"partitions": {"abc": 1}}, {"partitions": {"0": -1, "1": 1}}, {"partitions": {"0": 0}},
     {"partitions": {"9" * 5000: 1, "0": 1}}, {"tokens": {"input": 2**62}}, {"tokens": {"output": -1}}],
)  # fmt: skip
def test_a_call_that_can_not_be_costs_nothing_and_is_counted(changes: dict[str, Any]) -> None:
    """Whoever can write to the topic of calls neither moves the hard stop by a negative cost nor stops the worker."""
    spending = Spending(Budget(10_000), tenant="bank", connection={}, receipts="r", calls="c", day=lambda: DAY)
    assert spending._counted(call("sound", 11, 400), 0, at(0), DAY) is not None
    assert spending._counted(odd(**changes), 0, at(0), DAY) is None
    assert spending.damaged == 1


async def test_a_successor_counts_the_receipt_and_every_call_since_once(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """Its share of each call; not those the receipt has, not another tenant's, not yesterday's, and none twice."""
    source = TopicPartition(topic("source"), 0)
    receipts, calls = topic("receipts"), topic("calls")
    for name, partitions in ((receipts, 2), (calls, 2)):
        await create_topic(broker.bootstrap, name, partitions)
    about = [
        call("yesterday", -86_400, 400), call("midnight", -43_199.5, 400), call("before", 9, 400), call("since", 11, 400),
        call("since", 11, 400), call("unpriced", 12, None), call("another tenant", 12, 400, tenant="insurer"),
        call("another partition", 12, 400, partitions={"1": 2}), b"no call", call("late", 13, 40),
    ]  # fmt: skip
    for place, value in enumerate(about):
        await produce(broker.bootstrap, calls, [(b"w", value)], partition=place % 2)
    assert await taken(broker, source, receipts, calls) == 300 + 300 + 300 + 30, "without a receipt: the whole day"
    await produce(broker.bootstrap, receipts, [(receipt_key(source), receipt(source, 10, {f"bank/{DAY}": 700}))], partition=0)
    assert await taken(broker, source, receipts, calls) == 700 + 300 + 30
    assert await taken(broker, source, receipts, calls, "2025-10-10") == 0


async def test_a_call_is_counted_though_the_clock_of_its_record_is_behind(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """A broker's clock may say that it was written before the receipt: what the call says of its end is what counts."""
    source = TopicPartition(topic("source"), 0)
    receipts, calls = topic("receipts"), topic("calls")
    for name in (receipts, calls):
        await create_topic(broker.bootstrap, name, 2, retention_ms="-1")
    await produce(broker.bootstrap, receipts, [(receipt_key(source), receipt(source, 10, {f"bank/{DAY}": 700}))], partition=0)
    for name, seconds in (("before", 9), ("since", 11)):
        behind = NOON_MS + (seconds - 30) * 1000
        await produce(broker.bootstrap, calls, [(b"w", call(name, seconds, 400))], partition=0, timestamp_ms=behind)
    assert await taken(broker, source, receipts, calls) == 700 + 300
