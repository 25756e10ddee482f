"""Assignment and delivery with a broker of the test's: who may decide, from where on, and what is dropped and read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.errors import Fenced, OutcomeUnknown
from tests.support.transport import Echo, until
from topics.handover import Feed, Outbound, TopicPartition
from topics.progress import encode
from topics.publish.contract import Position, Promise, Publisher
from topics.record import Raw
from topics.transport.assignment import Assignment
from topics.transport.consumer import Consumer
from topics.transport.membership import Membership

TP = TopicPartition("orders", 0)


class Group:
    """A broker and a group of one: Publishing, Membership and the consumer at once. `log` is what was asked, in order."""

    promise: Promise = "exactly-once"
    revoking = False

    def __init__(self) -> None:
        self.now = 1
        self.position: Position | None = None
        self.probing: list[Exception] = []
        self.on_open: Position | None = None
        self.log: list[str] = []

    def generation(self) -> int:
        return self.now

    def source_partitions(self) -> set[TopicPartition]:
        return {TP}

    async def open(self, tp: TopicPartition) -> Publisher:
        """Fences: a commit that the earlier owner had under way is settled by then."""
        self.log.append("open")
        if self.on_open is not None:
            self.position, self.on_open = self.on_open, None
        return self

    async def publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        self.log.append("publish")
        self.position = position

    async def probe(self, position: Position) -> None:
        self.log.append("probe")
        if self.probing:
            raise self.probing.pop(0)

    async def discard(self) -> None:
        """Nothing is held."""

    async def settled(self, generation: int) -> bool:
        return generation == self.now

    async def committed(self, tp: TopicPartition) -> Position | None:
        self.log.append("committed")
        return self.position

    async def log_bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return 0, 100

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        return dict.fromkeys(topics, 1)

    async def ends(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 100)


@asynccontextmanager
async def owning(group: Group, handler: Echo) -> AsyncIterator[Assignment]:
    """An assignment that has taken TP in generation 1 and reads."""
    failed: list[BaseException] = []
    assignment = Assignment(
        Feed("a", 1, "g", TP.topic, "receipts", ("out",)), handler, group, cast(Membership, group), connection={}, limits={},
        ask_limits=False, on_fatal=failed.append,
    )  # fmt: skip
    assignment.consumer = group
    await begin(assignment)
    try:
        yield assignment
    finally:
        await assignment.close()
    assert not failed


async def begin(assignment: Assignment) -> None:
    """The generation that the group is in begins."""
    async with asyncio.timeout(30):
        await assignment.on_assigned()
    assignment.resumed()


def at(offset: int) -> Position:
    """A position that another worker of ours has committed."""
    return Position(offset, encode(offset, 7, ()))


def records(first: int, count: int) -> list[Any]:
    """So many records of TP."""
    return [Raw(TP.topic, b"v", b"k", partition=TP.partition, offset=first + i, timestamp=0) for i in range(count)]


async def commit_some(assignment: Assignment) -> None:
    """Ten records are decided and committed, so that there is a position of ours."""
    assignment.offer(assignment.parts[TP].add(records(0, 10), [1] * 10))
    await until(lambda: assignment.stats.outcomes == 10)


async def test_a_position_is_read_after_the_fence_only() -> None:
    """The earlier owner's last commit becomes visible by the fence: reading starts behind it, and nothing is decided twice."""
    group = Group()
    group.position, group.on_open = at(3), at(8)
    async with owning(group, Echo("out")) as assignment:
        assert assignment.parts[TP].progress.read == 8
        assert group.log[:2] == ["open", "committed"]


async def test_a_partition_that_stays_is_kept_only_if_nobody_else_had_it() -> None:
    """The broker confirms our position: what is in memory stays, nothing is taken anew, and reading goes on from it."""
    group, handler = Group(), Echo("out")
    async with owning(group, handler) as assignment:
        await commit_some(assignment)
        partition = assignment.parts[TP]
        group.now = 2
        await begin(assignment)
        assert assignment.parts[TP] is partition
        assert partition.reseek
        assert group.log[-1] == "probe"
        assert assignment.stats.kept == 1
        assert handler.taken == [TP]


async def test_a_partition_that_another_had_meanwhile_is_taken_anew() -> None:
    """The broker says that we are fenced: what is in memory is forgotten, and reading goes on where the other has stopped."""
    group, handler = Group(), Echo("out")
    async with owning(group, handler) as assignment:
        await commit_some(assignment)
        ours = assignment.parts[TP]
        group.now = 2
        group.position = at(25)
        group.probing.append(Fenced("another producer has taken over"))
        await begin(assignment)
        assert ours.dead
        assert handler.lost == [TP]
        assert handler.taken == [TP, TP]
        assert assignment.parts[TP].progress.read == 25


@pytest.mark.parametrize(("there", "kept"), [(10, True), (25, False)], ids=["ours", "another's"])
async def test_a_probe_without_an_answer_is_settled_by_what_is_committed(there: int, kept: bool) -> None:
    """Nobody knows whether we are fenced: we fence, and the partition is kept only if the last commit is ours."""
    group, handler = Group(), Echo("out")
    async with owning(group, handler) as assignment:
        await commit_some(assignment)
        ours = assignment.parts[TP]
        assert group.position is not None
        assert group.position.offset == 10
        if there != 10:
            group.position = at(there)
        group.now = 2
        group.probing.append(OutcomeUnknown("no answer"))
        await begin(assignment)
        assert ours.dead is not kept
        assert handler.taken == ([TP] if kept else [TP, TP])
        assert assignment.parts[TP].progress.read == there


@pytest.mark.parametrize("what", ["fetched in time", "assignment moved on", "group moved on", "flow suspended"])
async def test_a_fetch_of_an_earlier_generation_is_dropped_and_read_again(what: str) -> None:
    """Records that come after their generation has ended are handed to nobody; the position is set anew before the next fetch."""
    group = Group()
    async with owning(group, Echo("out")) as assignment:
        partition = assignment.parts[TP]
        partition.reseek = False
        delivered: list[Any] = []

        async def callback(message: Any) -> None:
            delivered.append(message)

        async def first(*waits: Any) -> None:
            await waits[0]
            waits[1].close()

        consumer = SimpleNamespace(
            assignment_of_feed=assignment, generation=group.generation, flow_active=True, _read_offset={}, callback=callback,
            _thread=SimpleNamespace(_ensure_consumer=lambda: SimpleNamespace(last_stable_offset=lambda tp: 5)),
            _message=Consumer._message, wait_first=first, suspend_flow=asyncio.Event(),
        )  # fmt: skip
        if what == "assignment moved on":
            assignment.live = 2
        elif what == "group moved on":
            group.now = 2
        elif what == "flow suspended":
            consumer.flow_active = False
        await Consumer._deliver(cast(Consumer, consumer), TP, records(0, 5), 1)
        if what == "fetched in time":
            assert [slot.value.records[-1].offset for slot in delivered] == [4]
            assert not partition.reseek
        else:
            assert delivered == []
            assert partition.reseek
            assert partition.progress.read == 0
            assert partition.held_records == 0
