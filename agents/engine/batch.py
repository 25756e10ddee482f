"""Micro-batches: when enough is there, something has waited long enough, or a deadline comes near. Pure; time is an argument.

The batcher holds lanes whose head is ready to be asked about. A batch takes from the lane that is due first, and may take
several consecutive items of one lane, so that a hot key does not make small batches.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from agents.engine.lanes import Lane

T = TypeVar("T")


class Batcher(Generic[T]):
    """Ready lanes by the time at which they must be flushed, in seconds of the caller's clock.

    `size` items or `max_weight` (bytes, as the caller weighs) close a batch; an item waits at most `within` seconds for
    company, and never beyond its deadline less `reserve` seconds.
    """

    def __init__(self, *, size: int, within: float, max_weight: int, reserve: float = 0.0) -> None:
        self._size = size
        self._within = within
        self._max_weight = max_weight
        self._reserve = reserve
        self._heap: list[tuple[float, int, Lane[T]]] = []
        self._tick = 0
        self.available = 0

    def put(self, lane: Lane[T], now: float, deadline: float) -> None:
        """An idle lane's head is ready. `deadline` is the head's."""
        lane.queued = True
        self._tick += 1
        self.available += len(lane.items)
        heapq.heappush(self._heap, (min(now + self._within, deadline - self._reserve), self._tick, lane))

    def grew(self) -> None:
        """A lane that is queued here got one more item."""
        self.available += 1

    def flush_at(self) -> float | None:
        """When the next batch must leave even if it is small; None when nothing waits."""
        while self._heap and self._heap[0][2].dead:
            heapq.heappop(self._heap)
        if not self._heap:
            self.available = 0
            return None
        return self._heap[0][0]

    def due(self, now: float) -> bool:
        """Whether a batch may leave now."""
        at = self.flush_at()
        return at is not None and (self.available >= self._size or at <= now)

    def take(self, weigh: Callable[[T], int], ready: Callable[[T], bool]) -> list[tuple[Lane[T], T]]:
        """The next batch, in lane order. Its lanes are busy until the caller gives them back.

        `ready` is asked for each item behind a head: False ends that lane's share (it may not be askable at all).
        """
        batch: list[tuple[Lane[T], T]] = []
        weight = 0
        while self._heap and len(batch) < self._size:
            _, _, lane = self._heap[0]
            if lane.dead:
                heapq.heappop(self._heap)
                continue
            first = weigh(lane.items[0])
            if batch and weight + first > self._max_weight:
                break
            heapq.heappop(self._heap)
            lane.queued = False
            lane.busy = True
            self.available -= len(lane.items)
            items = lane.items
            weight += first
            batch.append((lane, items.popleft()))
            while items and len(batch) < self._size:
                item = items[0]
                if not ready(item):
                    break
                add = weigh(item)
                if weight + add > self._max_weight:
                    break
                weight += add
                batch.append((lane, items.popleft()))
        return batch
