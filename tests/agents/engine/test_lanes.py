"""Lanes and micro-batches: order within a key, bounds of a batch, nothing lost, nothing twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.engine.batch import Batcher
from agents.engine.lanes import Lane, Lanes

Item = tuple[str | None, int, int, int]
"""Key, serial number, bytes, tokens."""
items = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 10), st.integers(0, 10)), max_size=60)
limits = st.tuples(st.integers(1, 5), st.integers(5, 40), st.integers(5, 40))
FAR = 1e9


def weigh(item: Item) -> tuple[int, int]:
    return item[2], item[3]


def batcher_of(size: int, heaviest: float = 1e9, longest: float = 1e9, *, within: float, reserve: float = 0.0) -> Batcher[Item]:
    return Batcher(weigh, size=size, within=within, max_bytes=heaviest, max_tokens=longest, reserve=reserve)


@settings(deadline=None)
@given(items, limits, st.randoms(use_true_random=False))
def test_every_item_leaves_once_in_order_of_its_key_whatever_finishes_first(
    stream: list[tuple[str | None, int, int]], limit: tuple[int, int, int], random: object
) -> None:
    """No batch exceeds a limit unless it is one item, one key is in one batch at a time, and its order is kept."""
    size, heaviest, longest = limit
    choose = random.choice  # type: ignore[attr-defined]  # hypothesis' Random, given as object
    lanes: Lanes[Item] = Lanes()
    batcher = batcher_of(*limit, within=1.0)
    waiting: list[Item] = [(key, n, heavy, long) for n, (key, heavy, long) in enumerate(stream)]
    in_flight: list[list[tuple[Lane[Item], Item]]] = []
    left: list[Item] = []

    def advance(lane: Lane[Item]) -> None:
        if lane.items:
            batcher.put(lane, 0.0, FAR)
        else:
            lanes.tidy(lane)

    while waiting or in_flight or batcher.flush_at() is not None:
        # Only steps that move something on, or a stream of refused steps would never end.
        possible = {"add": bool(waiting), "take": batcher.due(2.0), "finish": bool(in_flight)}
        step = choose([name for name, can in possible.items() if can])
        if step == "add":
            item = waiting.pop(0)
            lane = lanes.add(item[0], item)
            if lane.idle:
                advance(lane)
            elif lane.queued:
                batcher.grew(lane)
        elif step == "take":
            batch = batcher.take(lambda item: True)
            assert 0 < len(batch) <= size
            assert len(batch) == 1 or sum(item[2] for _, item in batch) <= heaviest
            assert len(batch) == 1 or sum(item[3] for _, item in batch) <= longest
            keys = {item[0] for _, item in batch} - {None}
            assert not keys & {item[0] for b in in_flight for _, item in b}
            in_flight.append(batch)
        else:
            batch = in_flight.pop(choose(range(len(in_flight))))
            left += [item for _, item in batch]
            for lane in dict.fromkeys(lane for lane, _ in batch):
                lane.busy = False
                advance(lane)
    assert sorted(item[1] for item in left) == list(range(len(stream)))
    for key in ("a", "b", "c"):
        mine = [item[1] for item in left if item[0] == key]
        assert mine == sorted(mine)
    assert list(lanes) == []
    assert batcher.available == 0


@settings(deadline=None)
@given(items, limits, st.floats(0, 10), st.randoms(use_true_random=False))
def test_what_reaches_a_limit_its_age_or_its_deadline_is_due_at_once_and_nothing_else(
    stream: list[tuple[str | None, int, int]], limit: tuple[int, int, int], within: float, random: object
) -> None:
    """At every moment, also after a partition was lost: count, bytes, tokens, the oldest head's age, the nearest deadline."""
    size, heaviest, longest = limit
    partitions: list[Lanes[Item]] = [Lanes(), Lanes()]
    batcher = batcher_of(*limit, within=within, reserve=1.0)
    flush_at: dict[Lane[Item], float] = {}
    busy: list[Lane[Item]] = []
    now = 0.0

    def advance(lane: Lane[Item]) -> None:
        if lane.items:
            deadline = now + random.uniform(0, 15)  # type: ignore[attr-defined]  # as above
            batcher.put(lane, now, deadline)
            flush_at[lane] = min(now + within, deadline - 1.0)

    for number, (key, heavy, long) in enumerate(stream):
        step = random.choice(["add", "add", "add", "wait", "take", "finish", "lose"])  # type: ignore[attr-defined]  # as above
        if step == "add":
            lane = random.choice(partitions).add(key, (key, number, heavy, long))  # type: ignore[attr-defined]  # as above
            if lane.idle:
                advance(lane)
            elif lane.queued:
                batcher.grew(lane)
        elif step == "wait":
            now += random.uniform(0, 5)  # type: ignore[attr-defined]  # as above
        elif step == "take" and batcher.due(now):
            batch = batcher.take(lambda item: True)
            assert flush_at[batch[0][0]] == min(flush_at.values())
            for lane in dict.fromkeys(lane for lane, _ in batch):
                del flush_at[lane]
                busy.append(lane)
        elif step == "finish" and busy:
            lane = busy.pop()
            lane.busy = False
            if not lane.dead:
                advance(lane)
        elif step == "lose" and number % 7 == 0:
            partitions[0].kill()
            batcher.purge()
            flush_at = {lane: at for lane, at in flush_at.items() if not lane.dead}
            partitions[0] = Lanes()
        there = [item for lane in flush_at for item in lane.items]
        full = len(there) >= size or sum(i[2] for i in there) >= heaviest or sum(i[3] for i in there) >= longest
        aged = bool(flush_at) and min(flush_at.values()) <= now
        assert batcher.due(now) is (bool(there) and (full or aged))
        assert batcher.flush_at() == min(flush_at.values(), default=None)


def test_a_batch_leaves_by_count_by_age_and_by_the_nearest_deadline() -> None:
    """Full at once; small after `within`; earlier where a deadline less its reserve is nearer."""
    lanes: Lanes[Item] = Lanes()
    batcher = batcher_of(2, within=10.0, reserve=1.0)
    batcher.put(lanes.add("a", ("a", 0, 1, 1)), 100.0, FAR)
    assert not batcher.due(109.9)
    assert batcher.due(110.0)
    batcher.put(lanes.add("b", ("b", 1, 1, 1)), 101.0, deadline=105.0)
    assert batcher.due(101.0)  # two are there
    assert batcher.flush_at() == 104.0
    assert [item[0] for _, item in batcher.take(lambda item: True)] == ["b", "a"]
    assert batcher.flush_at() is None


def test_a_lost_partition_leaves_nothing_behind_in_the_batcher() -> None:
    """Killed lanes are passed over and the count is that of the living."""
    lanes: Lanes[Item] = Lanes()
    batcher = batcher_of(2, within=1.0)
    batcher.put(lanes.add("a", ("a", 0, 1, 1)), 0.0, FAR)
    lanes.kill()
    batcher.purge()
    assert batcher.flush_at() is None
    assert batcher.take(lambda item: True) == []
    assert batcher.available == 0


def test_one_item_past_a_limit_leaves_alone_and_at_once() -> None:
    """It is due without company, takes none along, and does not leave with those that wait before it."""
    lanes: Lanes[Item] = Lanes()
    batcher = batcher_of(8, longest=100, within=10.0)
    batcher.put(lanes.add("a", ("a", 0, 1, 60)), 0.0, FAR)
    assert not batcher.due(0.0)
    batcher.put(lanes.add("b", ("b", 1, 1, 500)), 0.0, FAR)
    batcher.put(lanes.add("c", ("c", 2, 1, 10)), 0.0, FAR)
    assert batcher.due(0.0)
    assert [item[0] for _, item in batcher.take(lambda item: True)] == ["a"]
    assert batcher.due(0.0)
    assert [item[0] for _, item in batcher.take(lambda item: True)] == ["b"]
    assert not batcher.due(0.0)


def test_an_item_that_could_not_be_weighed_before_is_weighed_when_it_is_taken() -> None:
    """What stands behind another of its key may get its features only then: the limit holds all the same."""
    lanes: Lanes[Item] = Lanes()
    ready: set[int] = {0}
    batcher: Batcher[Item] = Batcher(
        lambda item: (item[2], item[3] if item[1] in ready else 0), size=8, within=1.0, max_tokens=100
    )
    for number in range(3):
        lane = lanes.add("a", ("a", number, 1, 60))
        if number == 0:
            batcher.put(lane, 0.0, FAR)
        else:
            batcher.grew(lane)

    def get_ready(item: Item) -> bool:
        ready.add(item[1])
        return True

    taken = batcher.take(get_ready)
    assert [item[1] for _, item in taken] == [0]
    assert batcher.available == 0
    lane.busy = False
    batcher.put(lane, 0.0, FAR)
    assert batcher.available == 2
