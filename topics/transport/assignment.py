"""Ownership of partitions: taking, keeping, losing and retaking them, draining, and when reading pauses.

Two numbers say what is allowed. `pending` is the generation whose partitions have been taken, `live` the one whose flow Faust
has resumed: records are fetched and calls started only while `live` is the group's generation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from typing import Any, Protocol

from schemas.errors import BrokerError, Fenced
from topics.chain import Tip
from topics.handover import Feed, Handler, TopicPartition
from topics.progress import Mark, decode
from topics.publish.contract import Checkpoint, Position, Publisher, Publishing, no_checkpoint
from topics.transport.flush import Flusher
from topics.transport.limits import topic_limits
from topics.transport.membership import Membership
from topics.transport.partition import Partition, RecordSlot
from topics.transport.read_back import last_link, last_receipt
from topics.transport.stats import TransportStats

log = logging.getLogger(__name__)
_RETRY = 0.2
_RECHECK = 5.0
"""Seconds between two looks at whether a missing counterpart of a partition has been created."""
_ENDS_EVERY = 5.0
"""Seconds between two questions where the owned partitions end: a partition that is not read has a lag all the same."""
_TIP_SECONDS = 5.0
"""How long a receipt that was committed may take to show."""
_FLUSH_SECONDS = 5.0
"""What a drain grants the commits that are under way after the calls have ended."""


class Consumer(Protocol):
    """What we ask of topics/transport/consumer.py."""

    revoking: bool

    def generation(self) -> int:
        """The group's generation as this member knows it."""
        ...

    def source_partitions(self) -> set[TopicPartition]:
        """What is assigned to us now, of the source topic."""
        ...


class Assignment:
    """All partitions of one agent in this process. Lives in the main event loop.

    `fatal` is the exception that ended it, if one did: nothing is committed after that. `limits` are the outbound topics' sizes,
    shared with `publishing`; with `ask_limits` what the broker says of them is written into it before partitions are taken.
    """

    def __init__(
        self,
        feed: Feed,
        handler: Handler,
        publishing: Publishing,
        membership: Membership,
        *,
        connection: Mapping[str, Any],
        limits: MutableMapping[str, int],
        ask_limits: bool = True,
        on_fatal: Callable[[BaseException], None],
        checkpoint: Checkpoint = no_checkpoint,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.feed = feed
        self.handler = handler
        self.publishing = publishing
        self.membership = membership
        self.stats = TransportStats()
        self.flusher = Flusher(feed, publishing, membership, self, handler.references, handler.spend, self.stats, clock=clock)
        self.parts: dict[TopicPartition, Partition] = {}
        self.full: set[TopicPartition] = set()
        self.space = asyncio.Event()
        self.live: int | None = None
        self.pending: int | None = None
        self.stopping = False
        self.fatal: BaseException | None = None
        self.consumer: Consumer | None = None
        self.checkpoint = checkpoint
        self._connection = connection
        self._limits = limits
        self._ask_limits = self._limits_due = ask_limits
        self._limits_lock = asyncio.Lock()
        self._on_fatal = on_fatal
        self._clock = clock
        self._drained = False
        self._locks: dict[TopicPartition, asyncio.Lock] = {}
        self._retaking: set[TopicPartition] = set()
        # The broker must have refused a position before it is believed to lie beyond the end: the embedded broker's answer
        # to "where is the end" is the start of its last batch plus one.
        self._out_of_range: set[TopicPartition] = set()
        self._source_partitions = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watch: asyncio.Task[None] | None = None

    # ---- what the flush loop asks --------------------------------------------------------------------------------
    @property
    def running(self) -> bool:
        """True between the end of one rebalance and the start of the next."""
        return self.live is not None

    async def settled(self) -> bool:
        """Asked of the coordinator now: a member of the running generation."""
        live = self.live
        return live is not None and await self.membership.settled(live) and self.live == live

    def give_up(self, partition: Partition, why: str) -> None:
        """It is another's, or may be; ask for it again as long as it is assigned to us."""
        self._drop(partition, why)
        self._retake(partition.tp)

    def fail(self, exc: BaseException) -> None:
        """A fatal fault: from now on nothing is committed, and whoever runs the process is told to end it non-zero."""
        if self.fatal is not None:
            return
        self.fatal = exc
        log.critical("agent %s ends: %r", self.feed.agent, exc, exc_info=exc)
        self.stopping = True
        self.live = self.pending = None
        for partition in list(self.parts.values()):
            self._bury(partition)
        self.handler.pause()
        self._on_fatal(exc)

    # ---- taking ----------------------------------------------------------------------------------------------------
    async def on_assigned(self, *_: Any, **__: Any) -> None:
        """Faust's signal `on_rebalance_complete`: heartbeats run, the flow is shut. Take what is ours now."""
        consumer = self.consumer
        if consumer is None or self.stopping:
            return
        generation = consumer.generation()
        assigned = consumer.source_partitions()
        self.live = self.pending = None
        self._limits_due = self._ask_limits
        for tp in set(self.parts) - assigned:
            self._drop(self.parts[tp], "moved")
        self.stats.waiting = {tp: why for tp, why in self.stats.waiting.items() if tp in assigned}
        waiting = assigned
        while waiting and not self._overtaken(generation):
            results = await asyncio.gather(*(self._acquire(tp, generation) for tp in waiting), return_exceptions=True)
            failed = {}
            for tp, result in zip(list(waiting), results, strict=True):
                if isinstance(result, BrokerError):
                    failed[tp] = result
                elif isinstance(result, BaseException):
                    self.fail(result)
                    return
            for tp, why in failed.items():
                log.warning("taking %s/%d, trying again: %s", *tp, why)
            waiting = set(failed)
            if waiting:
                await asyncio.sleep(_RETRY)
        if self._overtaken(generation):
            return
        self.full.clear()
        self.stats.paused = set()
        self._drained = False
        self.pending = generation

    def _overtaken(self, generation: int) -> bool:
        consumer = self.consumer
        return consumer is None or self.stopping or consumer.revoking or consumer.generation() != generation

    def resumed(self) -> None:
        """Faust resumes the flow: if nothing newer has begun, records may be read and calls started."""
        consumer = self.consumer
        if self.pending is None or consumer is None or self.pending != consumer.generation() or consumer.revoking:
            return
        self.live, self.pending = self.pending, None
        for partition in list(self.parts.values()):
            partition.hurry = False
            self.flusher.retry(partition)
        if self._watch is None and not self.stopping:
            self._watch = self._spawn(self._watch_ends())
        try:
            self.handler.resume()
        except Exception as exc:  # noqa: BLE001  the contract of Handler: an exception ends the process
            self.fail(exc)
        self.space.set()

    async def _acquire(self, tp: TopicPartition, generation: int) -> None:
        """Take a partition, or keep it if nobody else has had it meanwhile. Raises BrokerError to be tried again."""
        async with self._locks.setdefault(tp, asyncio.Lock()):
            if self._overtaken(generation):
                return
            partition = self.parts.get(tp)
            if partition is not None and await self._keep(partition):
                return
            missing = await self._missing_counterpart(tp)
            if missing:
                if tp not in self.stats.waiting:
                    log.error("partition %s/%d waits: topic %s has no partition %d", *tp, missing, tp.partition)
                self.stats.waiting[tp] = missing
                self._retake(tp, every=_RECHECK)
                return
            self.stats.waiting.pop(tp, None)
            await self._take(tp)

    async def _keep(self, p: Partition) -> bool:
        """Show that nobody else has published for it since: then what is in memory is still true."""
        async with p.lock:
            if p.confirmed is None and not p.dead:
                p.doubt = True
            if p.publisher is not None and p.confirmed is not None and not p.doubt and not p.dead:
                try:
                    await p.publisher.probe(p.confirmed)
                except Fenced:
                    self.stats.fenced += 1
                    self._drop(p, "fenced")
                except BrokerError as exc:
                    log.warning("probing %s/%d: %s", *p.tp, exc)
                    p.doubt = True
            if p.doubt and not p.dead:
                await self.flusher.recover(p)
        if p.dead:
            return False
        self.stats.kept += 1
        p.reseek = True
        for span in list(p.progress.spans):
            if isinstance(span, RecordSlot) and not span.offered:
                self.offer(span)  # Faust dropped it with its generation
        self.flusher.retry(p)
        return True

    async def _take(self, tp: TopicPartition) -> None:
        """Fence first, then read what was committed: only then is it final."""
        self.checkpoint("take.start")
        await self._learn_limits()
        publisher = await self.publishing.open(tp)
        try:
            partition = await self._open(tp, publisher)
            await self.handler.take(partition)
        except BaseException:
            self._spawn(publisher.discard())
            raise
        if self.stopping:
            self._spawn(publisher.discard())
            return
        self.parts[tp] = partition
        self.stats.owned.add(tp)
        self.stats.frontiers[tp] = partition.progress.frontier
        self.stats.taken += 1
        self.flusher.kick(partition)

    async def _learn_limits(self) -> None:
        """Once for each assignment that takes partitions."""
        async with self._limits_lock:
            if self._limits_due:
                self._limits_due = False
                self._limits.update(await topic_limits(self._connection, [*self.feed.outbound, self.feed.receipts]))

    async def _open(self, tp: TopicPartition, publisher: Publisher) -> Partition:
        position = await self.membership.committed(tp)
        log_start, log_end = await self.membership.log_bounds(tp)
        self.stats.ends[tp] = log_end
        mark = Mark(0, (), "none")
        start = log_start
        if position is not None:
            start, mark = position.offset, await self._mark(tp, position)
            if tp in self._out_of_range and start > log_end:
                log.error("partition %s/%d ends at %d, below the committed %d: it began anew", *tp, log_end, start)
                self.stats.log_restarts += 1
                start, mark = log_start, Mark(mark.seq, (), "ok")
        self._out_of_range.discard(tp)
        partition = Partition(
            tp,
            publisher,
            position=position,
            mark=mark,
            log_start=log_start,
            start=start,
            topic_partitions=max(self._source_partitions, tp.partition + 1),
            connection=self._connection,
            limits=self._limits,
            stats=self.stats,
            kick=self.flusher.kick,
        )
        if self.feed.chained:
            partition.tip = await self._tip(tp, mark)
        self._lose(partition, log_start)
        partition.start = partition.progress.read
        return partition

    async def _mark(self, tp: TopicPartition, position: Position) -> Mark:
        mark = decode(position.offset, position.metadata)
        if mark.state == "ok":
            return mark
        if mark.state == "damaged":
            log.error("the commit of %s/%d at %d has metadata that is not ours: no done ranges", *tp, position.offset)
            self.stats.damaged_metadata += 1
        # a broker that drops metadata, or an offset that a person has set: receipts still count the commits
        last = await last_receipt(self._connection, self.feed.receipts, tp)
        return Mark(last.seq if last else 0, (), mark.state)

    async def _tip(self, tp: TopicPartition, mark: Mark) -> Tip:
        """Where the audit chain ends: at the last receipt of the log, whoever wrote it.

        The committed metadata says how many receipts there are at least. One that does not show yet is waited for, but not for
        ever: records must not wait for somebody to bring removed receipts back. `headrace verify` will say that they are gone.
        """
        limit = self._clock() + _TIP_SECONDS
        while True:
            last = await last_link(self._connection, self.feed.receipts, tp, self.feed.run)
            if last is not None and last.seq >= mark.seq:
                return last.tip
            if mark.state != "ok" or mark.seq == 0:
                return last.tip if last is not None else Tip()
            if self._clock() > limit:
                log.error("partition %s/%d has %d receipts, found is %s: the chain goes on from there", *tp, mark.seq, last)
                return last.tip if last is not None else Tip()
            await asyncio.sleep(_RETRY)

    def _lose(self, partition: Partition, log_start: int) -> None:
        first = partition.progress.read
        lost = partition.lose(log_start)
        if lost:
            self.stats.lost_offsets += lost
            log.error("partition %s/%d: retention removed offsets %d to %d unread", *partition.tp, first, log_start - 1)

    async def _missing_counterpart(self, tp: TopicPartition) -> str | None:
        """The first outbound topic that has no partition of this number."""
        ours = [*self.feed.outbound, self.feed.receipts]
        counts = await self.membership.partition_counts([*ours, self.feed.source])
        self._source_partitions = counts[self.feed.source]
        return next((topic for topic in ours if counts[topic] <= tp.partition), None)

    # ---- losing ------------------------------------------------------------------------------------------------------
    def _drop(self, partition: Partition, why: str) -> None:
        if partition.dead:
            return
        log.info("dropping partition %s/%d: %s", *partition.tp, why)
        self.stats.dropped += 1
        self._bury(partition)
        try:
            self.handler.lose(partition.tp)
        except Exception as exc:  # noqa: BLE001  the contract of Handler: an exception ends the process
            self.fail(exc)

    def _bury(self, partition: Partition) -> None:
        partition.bury()
        self.parts.pop(partition.tp, None)
        self.full.discard(partition.tp)
        self.stats.owned.discard(partition.tp)
        self.stats.paused.discard(partition.tp)
        self.stats.frontiers.pop(partition.tp, None)
        self.stats.ends.pop(partition.tp, None)
        publisher, partition.publisher = partition.publisher, None
        if publisher is not None:
            self._spawn(publisher.discard())

    def _retake(self, tp: TopicPartition, every: float = _RETRY) -> None:
        if tp not in self._retaking and not self.stopping:
            self._retaking.add(tp)
            self._spawn(self._retake_loop(tp, every))

    async def _retake_loop(self, tp: TopicPartition, every: float) -> None:
        """Fenced, or without counterpart, yet assigned: ours once the coordinator says that we are a member."""
        consumer = self.consumer
        assert consumer is not None
        generation = consumer.generation()
        try:
            while not self._overtaken(generation) and tp not in self.parts:
                await asyncio.sleep(every)
                try:
                    if self.live != generation or not await self.membership.settled(generation):
                        continue
                    await self._acquire(tp, generation)
                except BrokerError as exc:
                    log.warning("retaking %s/%d: %s", *tp, exc)
            if tp in self.parts:
                self.stats.retaken += 1
        except Exception as exc:  # noqa: BLE001  the handler failed while taking: its contract says that this is fatal
            self.fail(exc)
        finally:
            self._retaking.discard(tp)
            self.space.set()

    # ---- records -----------------------------------------------------------------------------------------------------
    def offer(self, slot: RecordSlot) -> None:
        """Hand records over, once."""
        partition = slot.partition
        if partition.dead or slot.offered or self.stopping:
            return
        slot.offered = True
        try:
            self.handler.offer(slot)
        except Exception as exc:  # noqa: BLE001  the contract of Handler: an exception ends the process
            self.fail(exc)
            return
        partition.release()
        self.room(partition)

    def room(self, partition: Partition) -> None:
        """Pause or go on with reading this partition, as its bounds say."""
        tp = partition.tp
        paused = tp in self.full
        why = partition.full(self.feed.bounds, max(1, len(self.parts)), paused=paused)
        if why is not None and not paused:
            self.full.add(tp)
            self.stats.pauses[why] += 1
            self.stats.paused.add(tp)
        elif why is None and paused:
            self.full.discard(tp)
            self.stats.paused.discard(tp)
            self.space.set()

    def bytes_full(self, partition: Partition) -> bool:
        """True when the rest of a fetch is better dropped and read again: the broker chose how many bytes to send."""
        return partition.held_bytes >= self.feed.bounds.bytes / max(1, len(self.parts))

    async def trimmed(self, tp: TopicPartition) -> None:
        """The broker says that our position is not in the log: retention overtook us, or the log began anew."""
        partition = self.parts.get(tp)
        if partition is None:
            return
        log_start, log_end = await self.membership.log_bounds(tp)
        if partition.progress.read > log_end:
            self._out_of_range.add(tp)
            self.give_up(partition, "the log began anew")
            return
        self._lose(partition, log_start)
        partition.reseek = True
        self.flusher.kick(partition)

    # ---- lag ---------------------------------------------------------------------------------------------------------
    async def _watch_ends(self) -> None:
        """Keep the ends of what is owned up to date, whether or not it is being read."""
        while not self.stopping:
            await asyncio.sleep(_ENDS_EVERY)
            if not self.parts:
                continue
            try:
                ends = await self.membership.ends(self.parts)
            except Exception as exc:  # noqa: BLE001  the lag is only told: whatever asking raises, the agent goes on
                log.warning("the lag of agent %s is as it was last seen: %r", self.feed.agent, exc)
                continue
            for tp, end in ends.items():
                if tp in self.parts:
                    self.stats.saw_end(tp, end)

    def stop_watching(self) -> None:
        """Ask no more where partitions end."""
        if self._watch is not None:
            self._watch.cancel()

    # ---- draining ------------------------------------------------------------------------------------------------------
    async def drain(self) -> None:
        """A rebalance or a stop: start nothing new, let calls in flight end, commit what they brought. Once a generation."""
        self.live = self.pending = None
        if self._drained or self.fatal is not None:
            return
        self._drained = True
        try:
            self.handler.pause()
            left = await self.handler.settle(self.feed.drain_seconds)
        except Exception as exc:  # noqa: BLE001  the contract of Handler: an exception ends the process
            self.fail(exc)
            return
        self.stats.left_at_drain = left
        if left:
            log.warning("agent %s: %d calls in flight were left after %.0f s", self.feed.agent, left, self.feed.drain_seconds)
        for partition in self.parts.values():
            partition.hurry = True
            partition.nudge.set()
            self.flusher.retry(partition)
        flushing = [p.task for p in self.parts.values() if p.task is not None]
        if flushing:
            await asyncio.wait(flushing, timeout=_FLUSH_SECONDS)

    async def close(self) -> None:
        """Give everything back, without sending anything more."""
        self.stopping = True
        self.stop_watching()
        for partition in list(self.parts.values()):
            self._bury(partition)
        pending = [task for task in self._tasks if task is not asyncio.current_task()]
        if pending:
            await asyncio.wait(pending, timeout=_FLUSH_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
