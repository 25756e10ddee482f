"""The way out of a partition: one commit at a time, and what to do when nobody knows whether it happened.

While a commit is under way the next outcomes gather: the commits grow with the load, and an idle worker answers at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from schemas.errors import BrokerError, Fenced, OutcomeUnknown, RecordTooLarge
from schemas.receipt import Position as ReferencePosition
from topics.handover import Feed, Finished, Outbound, TopicPartition
from topics.progress import Commit
from topics.publish.contract import Group, Position, Publishing
from topics.transport.partition import Partition, RecordSlot
from topics.transport.receipts import receipt
from topics.transport.stats import TransportStats

log = logging.getLogger(__name__)
SKIP_LINGER = 0.25
"""Seconds that skips without any record to publish wait for company: a stream of skips is not a commit per record."""
LONGEST_REST = 0.05
"""Most seconds that a partition rests after a commit, which is as long as the commit took. Partitions share the broker and this
machine: without the rest all of them have a transaction open all the time, and each takes that many times as long."""
MOST_RECORDS = 5000
"""Most outcomes that a commit adds to those of a failed attempt."""
MOST_CHAINED = 40_000
"""Most records that they may come to where the receipt names each by its digest: 8 bytes of each fit a receipt of 1 MB."""
_RETRY = 0.2
_RETRY_MOST = 5.0
"""Seconds until the next try after a failed commit: doubled each time between these two."""


class Ownership(Protocol):
    """What the flush loop asks of topics/transport/assignment.py."""

    @property
    def running(self) -> bool:
        """True between the end of one rebalance and the start of the next."""
        ...

    async def settled(self) -> bool:
        """Asked of the coordinator now: a member of the running generation."""
        ...

    def give_up(self, partition: Partition, why: str) -> None:
        """It is another's; try to get it back if it is still assigned to us."""
        ...

    def room(self, partition: Partition) -> None:
        """Records were freed: reading may go on."""
        ...

    def fail(self, exc: BaseException) -> None:
        """End the process with nothing more committed."""
        ...


class Flusher:
    """Runs the flush loops of all partitions of one agent. `clock` is monotonic seconds."""

    def __init__(
        self,
        feed: Feed,
        publishing: Publishing,
        group: Group,
        ownership: Ownership,
        references: Callable[[], Sequence[ReferencePosition]],
        spend: Callable[[TopicPartition], Mapping[str, int]],
        stats: TransportStats,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.feed = feed
        self.publishing = publishing
        self.group = group
        self.ownership = ownership
        self.references = references
        self.spend = spend
        self.stats = stats
        self.clock = clock
        self.wall_ms = wall_ms

    def kick(self, partition: Partition) -> None:
        """See to it that what is finished gets out: now, or after the wait of an attempt that failed."""
        if partition.task is None and partition.retry is None and not partition.dead and partition.progress.dirty:
            partition.task = asyncio.create_task(self._flush(partition))

    def retry(self, partition: Partition) -> None:
        """Try now what a failed attempt has put off: its wait is over, or there is a reason not to wait."""
        if partition.retry is not None:
            partition.retry.cancel()
            partition.retry = None
        self.kick(partition)

    async def _flush(self, p: Partition) -> None:
        again = False
        try:
            while p.progress.dirty and not p.dead:
                await self._pace(p)
                async with p.lock:
                    if p.dead:
                        return
                    again = not await self._flush_once(p)
                if again:
                    return
        except Exception as exc:  # noqa: BLE001  a defect of ours: nothing may be committed after it
            self.ownership.fail(exc)
        finally:
            p.task = None
            if again and not p.dead:
                wait = min(_RETRY * 2**p.failures, _RETRY_MOST)
                p.retry = asyncio.get_running_loop().call_later(wait, self.retry, p)

    async def _pace(self, p: Partition) -> None:
        """Wait for the gap between two commits, and let lone skips gather."""
        quiet_until = self.clock() + SKIP_LINGER
        while not (p.hurry or p.dead):
            due = max(p.last_commit + self.feed.commit_gap, p.rested)
            if not (p.loud or p.progress.unconfirmed):
                due = max(due, quiet_until)
            wait = due - self.clock()
            if wait <= 0:
                return
            p.nudge.clear()
            try:
                await asyncio.wait_for(p.nudge.wait(), wait)
            except TimeoutError:
                return

    async def _flush_once(self, p: Partition) -> bool:
        """One commit. False: try again a little later."""
        if p.doubt:
            if not self.ownership.running or not await self._sure(p):
                return False  # while a rebalance is under way, the next assignment finds out or drops the partition
            if p.dead:
                return True
        before = p.progress.held_back
        most = MOST_RECORDS if p.tip is None else max(1, min(MOST_RECORDS, MOST_CHAINED // p.widest))
        commit = p.progress.take(self.feed.bounds.metadata, most)
        self.stats.held_back += p.progress.held_back - before
        if commit is None:
            return False
        p.loud = bool(p.progress.waiting - len(commit.items))
        p.last_commit = self.clock()
        p.attempted = Position(commit.frontier, commit.metadata)
        return await self._publish(p, commit)

    async def _publish(self, p: Partition, commit: Commit[RecordSlot, Finished]) -> bool:
        records: list[Outbound] = [record for _, _, outcome in commit.items for record in outcome.outbound]
        proof, p.tip_attempted = receipt(
            self.feed, p.tp, commit, self.publishing.promise, self.references(), self.spend(p.tp),
            self.wall_ms(),
            tip=p.tip, room=p.limit(self.feed.receipts) // 2,
        )  # fmt: skip
        assert p.publisher is not None
        assert p.attempted is not None
        try:
            await p.publisher.publish(records, proof, p.attempted)
        except Fenced as exc:
            if not p.dead:
                self.stats.fenced += 1
                log.warning("partition %s/%d is another's now: %s", *p.tp, exc)
                self.ownership.give_up(p, "fenced")
            return True
        except RecordTooLarge as exc:
            self.ownership.fail(exc)
            return True
        except OutcomeUnknown as exc:
            p.doubt = p.loud = True
            p.failed()
            self.stats.commit_failures += 1
            log.warning("committing %s/%d: nobody knows whether it happened: %s", *p.tp, exc)
            return False
        self.confirm(p)
        return True

    def confirm(self, p: Partition) -> None:
        """The commit under way is known to have happened."""
        if p.dead:
            return
        p.failures = 0
        p.tip = p.tip_attempted
        commit = p.confirm(self.feed.bounds.metadata)
        stats = self.stats
        now = self.clock()
        seconds = now - p.last_commit
        p.rested = now + min(seconds, LONGEST_REST)
        stats.commits += 1
        stats.outcomes += len(commit.items)
        stats.commit_seconds_sum += seconds
        stats.commit_seconds_max = max(stats.commit_seconds_max, seconds)
        stats.metadata_bytes_max = max(stats.metadata_bytes_max, len(commit.metadata))
        self.ownership.room(p)

    async def _sure(self, p: Partition) -> bool:
        """Find out what became of the last commit; False when that is not possible just now."""
        try:
            if not await self.ownership.settled():
                p.failed()
                return False
            await self.recover(p)
        except BrokerError as exc:
            p.failed()
            log.warning("finding out what became of the last commit of %s/%d: %s", *p.tp, exc)
            return False
        return True

    async def recover(self, p: Partition) -> None:
        """Unknown outcome: fence again, read what was committed, and keep what is in memory if that is ours.

        Only the last confirmed and the attempted position are accepted; both carry a sequence number, so that they differ
        even where the frontier did not move. Raises BrokerError when the broker can not be asked.
        """
        if p.publisher is not None:
            old, p.publisher = p.publisher, None
            await old.discard()
        p.publisher = await self.publishing.open(p.tp)
        found = await self.group.committed(p.tp)
        if p.dead:
            return
        p.doubt = False
        if same(found, p.confirmed):
            self.stats.recovered += 1
        elif p.progress.unconfirmed and same(found, p.attempted):
            self.stats.recovered += 1
            self.confirm(p)
        else:
            log.warning("partition %s/%d: %s was committed by another, ours was %s", *p.tp, found, p.confirmed)
            self.ownership.give_up(p, "moved")


def same(found: Position | None, ours: Position | None) -> bool:
    """Equal, where the broker may have dropped the metadata (embedded Tansu does)."""
    if found is None or ours is None:
        return found is ours
    return found.offset == ours.offset and found.metadata in ("", ours.metadata)
