"""Partition: one source partition for as long as nobody else owns it; what its handler sees, and what it holds in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

from schemas.errors import FatalError, RecordTooLarge
from topics.chain import Tip
from topics.handover import Bounds, Finished, Slot, TopicPartition
from topics.progress import Commit, Mark, Progress, Span
from topics.publish.contract import Limits, Position, Publisher
from topics.publish.sizes import DEFAULT_LIMIT, check
from topics.record import RawRecord
from topics.transport.read_back import read_back
from topics.transport.stats import TransportStats

_RECORD_OVERHEAD = 200
"""What a record object costs in memory beside its bytes, roughly."""
_WIDE, _NARROW = 0.6, 0.4
"""Shares of the metadata's limit at which reading pauses and goes on."""


class RecordSlot(Span):
    """A list of records as handed over. `offered` turns true when the handler has it."""

    __slots__ = ("finished", "offered", "partition", "records", "sizes")

    def __init__(self, records: list[Any], sizes: list[int], partition: Partition) -> None:
        super().__init__(partition.progress.read, records[-1].offset + 1, [r.offset for r in records])
        self.records: list[Any] = records
        self.partition = partition
        self.sizes = sizes
        self.finished = bytearray(len(records))
        self.offered = False


def memory_size(record: Any) -> int:
    """Bytes that an aiokafka record holds, roughly."""
    size = _RECORD_OVERHEAD + (len(record.value) if record.value else 0) + (len(record.key) if record.key else 0)
    for name, content in record.headers:
        size += len(name) + (len(content) if content else 0)
    return size


class Partition:
    """What we know of one partition that is ours. The flush loop lives in topics/transport/flush.py.

    `confirmed` is the position last known to be committed, `attempted` the one of the commit under way; after an unknown
    outcome (`doubt`) the broker must show one of the two. `reseek`: what was fetched last was dropped, or nothing was
    fetched yet: the fetch loop has to set the position before it asks again. `retry` is the one timer that a failed
    attempt has left; while it runs nothing else starts a commit. `log_start` grows when retention overtakes reading.
    `tip` is where the audit chain ends (None where none is kept), `tip_attempted` where it will once the commit under way is
    confirmed; `widest` is the most records that an outcome has brought.
    `last_commit` is when the last commit began, `rested` when the next may begin, by the flusher's clock.
    """

    def __init__(
        self,
        tp: TopicPartition,
        publisher: Publisher,
        *,
        position: Position | None,
        mark: Mark,
        log_start: int,
        start: int,
        topic_partitions: int,
        connection: Mapping[str, Any],
        limits: Limits,
        stats: TransportStats,
        kick: Callable[[Partition], None],
    ) -> None:
        self.tp = tp
        self.publisher: Publisher | None = publisher
        self.log_start = log_start
        self.start = start
        self.topic_partitions = topic_partitions
        self.progress: Progress[RecordSlot, Finished] = Progress(start, mark)
        self.confirmed = self.attempted = position
        self.tip: Tip | None = None
        self.tip_attempted: Tip | None = None
        self.widest = 1
        self.doubt = False
        self.reseek = True
        self.dead = self.loud = self.hurry = self.wide = False
        self.lock = asyncio.Lock()
        self.task: asyncio.Task[None] | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.nudge = asyncio.Event()
        self.last_commit = self.rested = float("-inf")
        self.held_records = self.held_bytes = self.failures = 0
        self._connection = connection
        self._limits = limits
        self._stats = stats
        self._kick = kick

    # ---- what the handler sees -------------------------------------------------------------------------------------
    def is_done(self, slot: Slot, index: int) -> bool:
        """True for a record whose outcome an earlier owner has committed."""
        inherited = cast(RecordSlot, slot).inherited
        return inherited is not None and inherited[index] == 1

    def limit(self, topic: str) -> int:
        """The largest record that an outbound topic takes."""
        return self._limits.get(topic, DEFAULT_LIMIT)

    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        """Take an outcome; see topics/handover.py."""
        if self.dead:
            return
        mine = cast(RecordSlot, slot)
        if mine.finished[index] or (mine.inherited is not None and mine.inherited[index]):
            raise FatalError(f"finishing {self.tp.topic}/{self.tp.partition}@{mine.offsets[index]}: it is finished already")
        if (outcome.skip is None) == (not outcome.outbound) and not outcome.part_skips:
            raise FatalError(f"finishing {self.tp.topic}/{self.tp.partition}@{mine.offsets[index]}: not one of outcome and skip")
        if outcome.outbound:
            self.widest = max(self.widest, len(outcome.outbound))
            try:
                check(outcome.outbound, self._limits)
            except RecordTooLarge:
                self._stats.too_large += 1
                raise
            if not self.loud:
                self.loud = True
                self.nudge.set()
        mine.finished[index] = 1
        self.progress.finish(mine, index, outcome)
        if self.task is None:
            self._kick(self)

    async def read_back(self, count: int) -> AsyncIterator[Sequence[RawRecord]]:
        """The records at offsets [start - count, start) that the log still holds, in order."""
        start = self.start
        async for records in read_back(self._connection, self.tp, max(start - count, self.log_start), start):
            yield records

    # ---- what is held ------------------------------------------------------------------------------------------------
    def lose(self, log_start: int) -> int:
        """The log begins at `log_start` now. Returns how many offsets were lost by that."""
        lost = self.progress.lose(log_start)
        self.log_start = max(self.log_start, log_start)
        self.loud = True
        return sum(end - first for first, end in lost)

    def add(self, records: list[Any], sizes: list[int]) -> RecordSlot:
        """Register what was fetched, with the bytes of each, before it is delivered anywhere."""
        slot = RecordSlot(records, sizes, self)
        self.progress.add(slot)
        self._hold(slot.left, sum(sizes))
        return slot

    def confirm(self, limit: int) -> Commit[RecordSlot, Finished]:
        """The commit under way has happened: free its records."""
        commit = self.progress.confirm()
        freed = 0
        for slot, index, _ in commit.items:
            freed += slot.sizes[index]
            slot.sizes[index] = 0
            slot.records[index] = None
        self._hold(-len(commit.items), -freed)
        self.confirmed = self.attempted
        self.wide = len(commit.metadata) > limit * (_NARROW if self.wide else _WIDE)
        self.release()
        return commit

    def release(self) -> None:
        """Free what lies below the frontier: records of an earlier owner's outcomes."""
        for span in self.progress.release():
            if isinstance(span, RecordSlot):
                self._hold(0, -sum(span.sizes))
        self._stats.frontiers[self.tp] = self.progress.frontier

    def bury(self) -> None:
        """It is another's now: whatever comes for it has no effect."""
        self.dead = True
        self._stats.outcomes_dropped += self.progress.waiting
        self._hold(-self.held_records, -self.held_bytes)
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def failed(self) -> None:
        """One more attempt in a row that brought nothing: the next one waits longer."""
        self.failures = min(self.failures + 1, 10)

    def _hold(self, records: int, size: int) -> None:
        self.held_records += records
        self.held_bytes += size
        self._stats.held_records += records
        self._stats.held_bytes += size

    def full(self, bounds: Bounds, owners: int, *, paused: bool) -> str | None:
        """Why reading this partition should pause, or stay paused; None to read. Each partition has an equal share.

        Past a bound reading pauses, below half of it reading goes on.
        """
        factor = 0.5 if paused else 1.0
        progress = self.progress
        if self.held_records >= max(1.0, bounds.records / owners * factor):
            return "records"
        if self.held_bytes >= bounds.bytes / owners * factor:
            return "bytes"
        if progress.read - progress.frontier >= max(1.0, bounds.span * factor):
            return "span"
        return "metadata" if self.wide else None
