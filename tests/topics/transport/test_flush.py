"""The flush loop against a broker that is away: one wait at a time, longer after each failure, whatever goes on arriving."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest

from schemas.errors import OutcomeUnknown
from schemas.receipt import Position as ReferencePosition
from tests.support.transport import until
from topics.handover import Bounds, Feed, Finished, Outbound, TopicPartition
from topics.progress import Mark
from topics.publish.contract import Group, Position, Promise, Publisher
from topics.record import Raw
from topics.transport import flush
from topics.transport.flush import Flusher
from topics.transport.partition import Partition, RecordSlot
from topics.transport.stats import TransportStats

TP = TopicPartition("orders", 0)
FIRST, MOST = 0.02, 0.16
DONE = Finished((Outbound("out", b"k", b"v", (), "decision"),))


class Broker:
    """A broker that can be away. It is Publishing, Publisher, Group and Ownership at once; `asked` are times of attempts."""

    promise: Promise = "exactly-once"
    running = True

    def __init__(self, *, away: bool = True) -> None:
        self.away = away
        self.member = True
        self.asked: list[float] = []
        self.published: list[int] = []
        self.position: Position | None = None

    def answer(self) -> None:
        if self.away:
            raise OutcomeUnknown("the broker is away")

    async def open(self, tp: TopicPartition) -> Publisher:
        self.asked.append(asyncio.get_running_loop().time())
        self.answer()
        return self

    async def publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        self.answer()
        self.published.append(len(records))
        self.position = position

    async def probe(self, position: Position) -> None:
        self.answer()

    async def discard(self) -> None:
        """Nothing is held."""

    async def committed(self, tp: TopicPartition) -> Position | None:
        self.answer()
        return self.position

    async def settled(self) -> bool:
        if not self.member:
            self.asked.append(asyncio.get_running_loop().time())
        return self.member

    def give_up(self, partition: Partition, why: str) -> None:
        raise AssertionError(f"gave {partition.tp} up: {why}")

    def room(self, partition: Partition) -> None:
        """Nothing is paused here."""

    def fail(self, exc: BaseException) -> None:
        raise AssertionError("ended") from exc


def no_references() -> Sequence[ReferencePosition]:
    """No reference tables."""
    return ()


def make(broker: Broker, stats: TransportStats, *, metadata: int = 4096, tp: TopicPartition = TP) -> tuple[Flusher, Partition]:
    """A flush loop and one partition of it."""
    feed = Feed("a", 1, "g", tp.topic, "receipts", ("out",), bounds=Bounds(metadata=metadata))
    flusher = Flusher(feed, broker, cast(Group, broker), broker, no_references, lambda tp: {}, stats)
    partition = Partition(
        tp, broker, position=None, mark=Mark(0, (), "none"), log_start=0, start=0,
        topic_partitions=1, connection={}, limits={}, stats=stats, kick=flusher.kick,
    )  # fmt: skip
    return flusher, partition


def filled(partition: Partition, count: int) -> RecordSlot:
    """So many records, handed over."""
    records: list[Any] = [Raw(partition.tp.topic, b"v", b"k", offset=i, timestamp=0) for i in range(count)]
    return partition.add(records, [1] * count)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a tenth of what they are, in the same proportion."""
    monkeypatch.setattr(flush, "_RETRY", FIRST)
    monkeypatch.setattr(flush, "_RETRY_MOST", MOST)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("member", [True, False], ids=["broker away", "not a member"])
async def test_outcomes_that_arrive_during_a_wait_start_no_attempt(member: bool) -> None:
    """200 outcomes arrive meanwhile: attempts keep the distance of one doubling wait, and stop with the partition."""
    broker = Broker()
    broker.member = member
    _, partition = make(broker, TransportStats())
    slot = filled(partition, 200)
    for index in range(200):
        partition.finish(slot, index, DONE)
        await asyncio.sleep(0.004)
    gaps = [later - earlier for earlier, later in pairwise(broker.asked)]
    assert len(gaps) >= 2
    # the first attempt to find out follows one failure, the second two; a timer is early by a tick of its clock at most
    for number, gap in enumerate(gaps):
        assert gap >= min(FIRST * 2 ** (number + 2), MOST) - 0.002
    assert partition.retry is not None
    partition.bury()
    assert partition.retry is None
    asked = len(broker.asked)
    await asyncio.sleep(2 * MOST)
    assert len(broker.asked) == asked


@pytest.mark.usefixtures("quick")
async def test_once_the_broker_is_back_everything_goes_out_and_the_next_wait_is_short_again() -> None:
    """The wait's own timer brings the attempt; what gathered meanwhile goes in one commit, and failures are forgotten."""
    broker, stats = Broker(), TransportStats()
    _, partition = make(broker, stats)
    slot = filled(partition, 20)
    for index in range(20):
        partition.finish(slot, index, DONE)
        await asyncio.sleep(0.005)
    broker.away = False
    await until(lambda: stats.outcomes >= 20)
    assert sum(broker.published) == 20
    assert partition.failures == 0
    assert partition.retry is None


async def test_a_new_assignment_does_not_sit_out_the_old_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """`retry` puts an end to the wait and tries at once."""
    monkeypatch.setattr(flush, "_RETRY", 60.0)
    monkeypatch.setattr(flush, "_RETRY_MOST", 60.0)
    broker, stats = Broker(), TransportStats()
    flusher, partition = make(broker, stats)
    partition.finish(filled(partition, 1), 0, DONE)
    await until(lambda: partition.retry is not None)
    broker.away = False
    flusher.retry(partition)
    await until(lambda: stats.outcomes == 1)
    assert partition.retry is None


async def test_what_is_held_back_is_counted_over_all_partitions() -> None:
    """Two partitions hold outcomes back for the metadata's sake: the counter is the sum of both, not what the last one said."""
    broker, stats = Broker(away=False), TransportStats()
    both = [make(broker, stats, metadata=40, tp=TopicPartition("orders", n))[1] for n in (0, 1)]
    for partition in both:
        slot = filled(partition, 400)
        for index in range(1, 400, 7):
            partition.finish(slot, index, DONE)
    await until(lambda: all(p.progress.held_back for p in both))
    assert stats.held_back == sum(p.progress.held_back for p in both)
    for partition in both:
        partition.bury()
