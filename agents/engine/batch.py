"""Micro-batches: when enough is there, something has waited long enough, or a deadline comes near. Pure; time is an argument.

The batcher holds lanes whose head is ready to be asked about. A batch takes from the lane that is due first, and may take
several consecutive items of one lane, so that a hot key does not make small batches.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from agents.engine.lanes import Lane

T = TypeVar("T")


class Batcher(Generic[T]):
    """Ready lanes by the time at which they must be flushed, in seconds of the caller's clock.

    `size` items, `max_bytes` or `max_tokens` close a batch, and one is due at once when so much waits; `weigh` gives an item's
    bytes and tokens. An item that alone is past a limit is a batch of its own. An item waits at most `within` seconds for
    company, and never beyond its deadline less `reserve` seconds.
    """

    def __init__(
        self, weigh: Callable[[T], tuple[int, int]], *, size: int, within: float, max_bytes: float = math.inf,
        max_tokens: float = math.inf, reserve: float = 0.0,
    ) -> None:  # fmt: skip
        self._weigh = weigh
        self._size = size
        self._within = within
        self._max_bytes, self._max_tokens = max_bytes, max_tokens
        self._reserve = reserve
        self._heap: list[tuple[float, int, Lane[T]]] = []
        self._tick = 0
        self.available = 0
        self._bytes = self._tokens = 0

    def put(self, lane: Lane[T], now: float, deadline: float) -> None:
        """An idle lane's head is ready. `deadline` is the head's."""
        lane.queued = True
        self._tick += 1
        count, heavy, long = len(lane.items), 0, 0
        # Weights matter only while fewer items wait than make a batch: no more than that are weighed.
        for item in islice(lane.items, self._size):
            size, tokens = self._weigh(item)
            heavy += size
            long += tokens
        self._add(lane, count, heavy, long)
        heapq.heappush(self._heap, (min(now + self._within, deadline - self._reserve), self._tick, lane))

    def grew(self, lane: Lane[T]) -> None:
        """A lane that is queued here got one more item."""
        self._add(lane, 1, *(self._weigh(lane.items[-1]) if len(lane.items) <= self._size else (0, 0)))

    def purge(self) -> None:
        """Lanes were killed: what waited in them waits no longer."""
        for _, _, lane in self._heap:
            if lane.dead:
                self._drop(lane)
        self._heap = [entry for entry in self._heap if not entry[2].dead]
        heapq.heapify(self._heap)

    def flush_at(self) -> float | None:
        """When the next batch must leave even if it is small; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> bool:
        """Whether a batch may leave now."""
        at = self.flush_at()
        return at is not None and (
            self.available >= self._size or self._bytes >= self._max_bytes or self._tokens >= self._max_tokens or at <= now
        )

    def take(self, ready: Callable[[T], bool]) -> list[tuple[Lane[T], T]]:
        """The next batch, in lane order. Its lanes are busy until the caller gives them back.

        `ready` is asked for each item behind a head: False ends that lane's share (it may not be askable at all).
        """
        batch: list[tuple[Lane[T], T]] = []
        heavy = long = 0
        while self._heap and len(batch) < self._size:
            lane = self._heap[0][2]
            size, tokens = self._weigh(lane.items[0])
            if batch and not self._fits(heavy + size, long + tokens):
                break
            heapq.heappop(self._heap)
            self._drop(lane)
            lane.queued = False
            lane.busy = True
            items = lane.items
            while True:
                heavy, long = heavy + size, long + tokens
                batch.append((lane, items.popleft()))
                if not items or len(batch) >= self._size or not ready(items[0]):
                    break
                size, tokens = self._weigh(items[0])  # only now: it may not have been ready to be weighed before
                if not self._fits(heavy + size, long + tokens):
                    break
        return batch

    def _fits(self, heavy: int, long: int) -> bool:
        return heavy <= self._max_bytes and long <= self._max_tokens

    def _add(self, lane: Lane[T], count: int, heavy: int, long: int) -> None:
        """What waits in a lane is more by so much; the lane knows its part, since its items may weigh otherwise later."""
        before = lane.counted
        lane.counted = before[0] + count, before[1] + heavy, before[2] + long
        self.available += count
        self._bytes += heavy
        self._tokens += long

    def _drop(self, lane: Lane[T]) -> None:
        """A lane waits here no longer."""
        count, heavy, long = lane.counted
        lane.counted = 0, 0, 0
        self.available -= count
        self._bytes -= heavy
        self._tokens -= long
