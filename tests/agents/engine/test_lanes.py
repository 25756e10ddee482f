"""Lanes and micro-batches: order within a key, bounds of a batch, nothing lost, nothing twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.engine.batch import Batcher
from agents.engine.lanes import Lane, Lanes

Item = tuple[str | None, int, int]
"""Key, serial number, weight."""
items = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 10)), max_size=60)
FAR = 1e9


def weight(item: Item) -> int:
    return item[2]


@given(items, st.integers(1, 5), st.integers(5, 40), st.randoms(use_true_random=False))
def test_every_item_leaves_once_in_order_of_its_key_whatever_finishes_first(
    stream: list[tuple[str | None, int]], size: int, heaviest: int, random: object
) -> None:
    """Batches hold at most `size` items and their weight, one key is in one batch at a time, and its order is kept."""
    choose = random.choice  # type: ignore[attr-defined]  # hypothesis' Random, given as object
    lanes: Lanes[Item] = Lanes()
    batcher: Batcher[Item] = Batcher(size=size, within=1.0, max_weight=heaviest)
    waiting: list[Item] = [(key, n, w) for n, (key, w) in enumerate(stream)]
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
                batcher.grew()
        elif step == "take":
            batch = batcher.take(weight, lambda item: True)
            assert 0 < len(batch) <= size
            assert len(batch) == 1 or sum(weight(item) for _, item in batch) <= heaviest
            keys = {item[0] for _, item in batch} - {None}
            assert not keys & {item[0] for b in in_flight for _, item in b}
            in_flight.append(batch)
        else:
            batch = in_flight.pop(choose(range(len(in_flight))))
            left += [item for _, item in batch]
            for lane in dict.fromkeys(lane for lane, _ in batch):
                lane.busy = False
                advance(lane)
    assert sorted(n for _, n, _ in left) == list(range(len(stream)))
    for key in ("a", "b", "c"):
        mine = [n for k, n, _ in left if k == key]
        assert mine == sorted(mine)
    assert list(lanes) == []
    assert batcher.available == 0


def test_a_batch_leaves_by_count_by_age_and_by_the_nearest_deadline() -> None:
    """Full at once; small after `within`; earlier where a deadline less its reserve is nearer."""
    lanes: Lanes[Item] = Lanes()
    batcher: Batcher[Item] = Batcher(size=2, within=10.0, max_weight=100, reserve=1.0)
    batcher.put(lanes.add("a", ("a", 0, 1)), 100.0, FAR)
    assert not batcher.due(109.9)
    assert batcher.due(110.0)
    batcher.put(lanes.add("b", ("b", 1, 1)), 101.0, deadline=105.0)
    assert batcher.due(101.0)  # two are there
    assert batcher.flush_at() == 104.0
    assert [item[0] for _, item in batcher.take(weight, lambda item: True)] == ["b", "a"]
    assert batcher.flush_at() is None


def test_a_lost_partition_leaves_nothing_behind_in_the_batcher() -> None:
    """Killed lanes are passed over and the count is that of the living."""
    lanes: Lanes[Item] = Lanes()
    batcher: Batcher[Item] = Batcher(size=2, within=1.0, max_weight=100)
    batcher.put(lanes.add("a", ("a", 0, 1)), 0.0, FAR)
    lanes.kill()
    assert batcher.flush_at() is None
    assert batcher.take(weight, lambda item: True) == []
    assert batcher.available == 0
