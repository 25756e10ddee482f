"""When reading a partition pauses and when it goes on: by records, bytes, span and metadata, each for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from topics.handover import Bounds, Finished, Outbound, TopicPartition
from topics.progress import Mark
from topics.publish.contract import Position
from topics.record import Raw
from topics.transport.partition import Partition
from topics.transport.stats import TransportStats

TP = TopicPartition("orders", 0)
DONE = Finished((Outbound("out", b"k", b"v", (), "decision"),))
WIDE = Bounds(records=10**9, bytes=10**12, span=10**9, metadata=10**9)


def partition() -> Partition:
    """An empty one that nobody flushes."""
    kick: Callable[[Partition], None] = lambda p: None  # noqa: E731  a callback that does nothing
    return Partition(
        TP, None, position=None, mark=Mark(0, (), "none"), log_start=0, start=0,  # type: ignore[arg-type]  # unused
        topic_partitions=1, connection={}, limits={}, stats=TransportStats(), kick=kick,
    )  # fmt: skip


def add(p: Partition, count: int, size: int = 1) -> Any:
    """So many records of so many bytes."""
    first = p.progress.read
    records: list[Any] = [Raw(TP.topic, b"v", b"k", offset=first + i, timestamp=0) for i in range(count)]
    return p.add(records, [size] * count)


def commit(p: Partition, limit: int = 4096) -> None:
    """All outcomes that there are go out and are confirmed."""
    taken = p.progress.take(limit)
    assert taken is not None
    p.attempted = Position(taken.frontier, taken.metadata)
    p.confirm(limit)


def test_an_empty_partition_is_read_however_small_its_bounds_are() -> None:
    """Nothing held pauses nothing, with bounds of one record, byte and offset and more partitions than records."""
    assert partition().full(Bounds(records=1, bytes=1, span=1, metadata=1), 50, paused=False) is None


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (Bounds(records=10, bytes=WIDE.bytes, span=WIDE.span), "records"),
        (Bounds(records=WIDE.records, bytes=1000, span=WIDE.span), "bytes"),
        (Bounds(records=WIDE.records, bytes=WIDE.bytes, span=10), "span"),
    ],
    ids=["records", "bytes", "span"],
)
def test_each_bound_pauses_when_it_is_reached_and_not_before(bounds: Bounds, why: str) -> None:
    """Nine of ten are below the bound, the tenth reaches it; the reason given is the bound's own."""
    p = partition()
    add(p, 9, 100)
    assert p.full(bounds, 1, paused=False) is None
    add(p, 1, 100)
    assert p.full(bounds, 1, paused=False) == why


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        (Bounds(records=10, bytes=WIDE.bytes, span=WIDE.span), "records"),
        (Bounds(records=WIDE.records, bytes=1000, span=WIDE.span), "bytes"),
        (Bounds(records=WIDE.records, bytes=WIDE.bytes, span=10), "span"),
    ],
    ids=["records", "bytes", "span"],
)
def test_a_paused_partition_goes_on_below_half_of_its_bound(bounds: Bounds, why: str) -> None:
    """At half of it reading stays paused, one less and it goes on."""
    p = partition()
    slot = add(p, 10, 100)
    for index in range(5):
        p.finish(slot, index, DONE)
    commit(p)
    assert p.full(bounds, 1, paused=False) is None
    assert p.full(bounds, 1, paused=True) == why
    p.finish(slot, 5, DONE)
    commit(p)
    assert p.full(bounds, 1, paused=True) is None


@pytest.mark.parametrize(("bounds", "why"), [(Bounds(records=20), "records"), (Bounds(bytes=2000), "bytes")])
def test_partitions_share_records_and_bytes_equally(bounds: Bounds, why: str) -> None:
    """What one of two may hold is half of the agent's bound."""
    p = partition()
    add(p, 10, 100)
    assert p.full(bounds, 1, paused=False) is None
    assert p.full(bounds, 2, paused=False) == why


def test_the_span_is_each_partitions_own() -> None:
    """One unfinished record with committed ones behind it holds few records and bytes, and still pauses reading."""
    p = partition()
    slot = add(p, 10)
    for index in range(1, 10):
        p.finish(slot, index, DONE)
    commit(p)
    assert p.held_records == 1
    assert p.full(Bounds(span=10), 7, paused=False) == "span"
    p.finish(slot, 0, DONE)
    commit(p)
    assert p.full(Bounds(span=10), 7, paused=True) is None


def test_metadata_that_grows_long_pauses_until_it_is_short_again() -> None:
    """Many gaps between committed records make a commit's metadata long: reading waits until the gaps are closed."""
    p = partition()
    limit = 200
    bounds = Bounds(metadata=limit)
    slot = add(p, 200)
    for index in range(1, 20, 2):
        p.finish(slot, index, DONE)
    commit(p, limit)
    assert p.attempted is not None
    assert len(p.attempted.metadata) < 0.6 * limit
    assert p.full(bounds, 1, paused=False) is None
    for index in range(21, 120, 2):
        p.finish(slot, index, DONE)
    commit(p, limit)
    assert 0.6 * limit < len(p.attempted.metadata) <= limit
    assert p.full(bounds, 1, paused=False) == "metadata"
    for index in range(0, 120, 2):
        p.finish(slot, index, DONE)
    commit(p, limit)
    assert p.full(bounds, 1, paused=True) is None
