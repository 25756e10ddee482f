"""Faust's consumer with the parts overridden that lose data or stop the group in stock Faust (facts in docs/decisions).

Faust keeps joining, rebalancing, timers and lifecycle. Ours are: what is fetched and in which lists it is delivered, where
reading starts, what a revocation waits for, and that nothing but topics/publish ever commits. Line numbers of faust 0.15.3.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import errors as kafka_errors
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP, ConsumerMessage

from schemas.errors import BrokerError
from topics.handover import TopicPartition
from topics.tolerant.consumer import TolerantConsumer
from topics.transport.partition import RecordSlot, memory_size

if TYPE_CHECKING:
    from topics.transport.app import FeedApp

log = logging.getLogger(__name__)
SLOT = 256
"""Most records handed over as one list."""
SLOT_BYTES = 262_144
"""About the most bytes of one list, one record excepted: by so much a partition can exceed its share of the bound."""
FETCH_GAP = 0.005
"""Least seconds from one fetch that brought little to the next: a steady trickle would otherwise be fetched record by record, and
each fetch costs as much as deciding a dozen."""
MAX_POLL = 1000
"""Most records asked for at once."""


class Thread(driver.AIOKafkaConsumerThread):
    """The thread that aiokafka's consumer lives in: its settings are ours, and one fetch asks for as much as there is room."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Read committed only, and never jump silently: a position outside the log is an error that we handle."""
        app: FeedApp = self.app
        self._assignor = RoundRobinPartitionAssignor
        times = app.times
        return TolerantConsumer(
            **app.connection,
            client_id=app.conf.broker_client_id,
            group_id=app.feed.group,
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_poll_records=MAX_POLL,
            # aiokafka does not rejoin once it was idle for longer than this; a paused agent is idle for as long as it takes
            max_poll_interval_ms=86_400_000,
            fetch_max_wait_ms=500,
            session_timeout_ms=int(times.session * 1000),
            heartbeat_interval_ms=int(times.heartbeat * 1000),
            rebalance_timeout_ms=int(times.rebalance * 1000),
            request_timeout_ms=int(times.request * 1000),
            retry_backoff_ms=50,
        )

    async def fetch(self, active: set[Any], timeout: float, most: int) -> Any:
        """Records by partition, up to `most` of them, waiting up to `timeout` seconds for the first."""
        return await self.call_thread(self._fetch_records, self._ensure_consumer(), active, timeout=timeout, max_records=most)


class Consumer(driver.Consumer):
    """One member of one agent's group."""

    app: FeedApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.revoking = False
        super().__init__(*args, **kwargs)
        self.assignment_of_feed = self.app.runtime
        self.assignment_of_feed.consumer = self

    def _new_consumer_thread(self) -> Any:
        return Thread(self, loop=self.loop, beacon=self.beacon)

    # ---- what topics/transport/assignment.py asks ------------------------------------------------------------------
    def generation(self) -> int:
        """The group's generation as this member knows it."""
        return int(self.app.consumer_generation_id)

    def source_partitions(self) -> set[TopicPartition]:
        """What is assigned to us now."""
        return {TopicPartition(*tp) for tp in self.assignment() if tp.topic == self.app.feed.source}

    # ---- group events ------------------------------------------------------------------------------------------------
    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Close and drain before Faust forgets what was assigned (stock: C:642 pops its bookkeeping first)."""
        self.revoking = True
        self.stop_flow()
        await self.assignment_of_feed.drain()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """A new generation; taking its partitions waits for `on_rebalance_complete`, outside of the group's callback."""
        self.revoking = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def wait_empty(self) -> None:
        """Drain with a deadline (stock: C:867 has none, collects garbage and commits at every wake-up)."""
        self._unacked_messages.clear()
        await self.assignment_of_feed.drain()

    async def on_stop(self) -> None:
        """Drain, leave, and give every producer back."""
        self.assignment_of_feed.stop_watching()  # it asks through the consumer that is about to go
        await super().on_stop()
        await self.assignment_of_feed.close()

    async def perform_seek(self) -> None:
        """Positions are set by the fetch loop; here the flow is opened, for the generation that was taken only (R:306)."""
        self.assignment_of_feed.resumed()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Only publishers commit (stock: C:936 may commit past unfinished work, and says False without committing)."""
        return False

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Faust's stuck detection knows nothing of our pausing (D:299); stats.last_poll and lag tell instead."""

    # ---- fetching ------------------------------------------------------------------------------------------------------
    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch lists of records and deliver them as one message each; the loop of Faust's Fetcher service (C:1170)."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                generation = self.generation()
                if self.assignment_of_feed.live is None or self.assignment_of_feed.live != generation:
                    await asyncio.sleep(0.02)  # short: between Faust's resuming the flow and the next look at it
                    continue
                await self._fetch_and_deliver(generation)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as exc:  # noqa: BLE001  whatever fetching raises: the process ends, nothing is lost
            self.assignment_of_feed.fail(exc)

    async def _fetch_and_deliver(self, generation: int) -> None:
        runtime = self.assignment_of_feed
        runtime.stats.last_poll = asyncio.get_running_loop().time()
        active = {tp for tp in self._get_active_partitions() if tp in runtime.parts and tp not in runtime.full}
        if not active:
            runtime.space.clear()
            try:
                await asyncio.wait_for(runtime.space.wait(), 0.5)
            except TimeoutError:
                pass  # look again: a partition may have been taken
            return
        try:
            await self._place(active)
            # with partitions paused, one that goes on must not wait for the others' next record
            timeout = 0.1 if len(active) < len(runtime.parts) else 1.0
            room = runtime.feed.bounds.records - runtime.stats.held_records
            records = await self._thread.fetch(active, timeout, min(MAX_POLL, max(1, room)))
        except kafka_errors.OffsetOutOfRangeError as exc:
            await self._out_of_range(exc)
            return
        except kafka_errors.NoOffsetForPartitionError:
            return  # raised for the time before our seek; the seek has removed it
        except BrokerError as exc:
            log.warning("placing the consumer: %s", exc)
            await asyncio.sleep(0.2)
            return
        await asyncio.sleep(0)
        if self.should_stop:
            return
        brought = 0
        for tp, found in (records or {}).items():
            brought += len(found)
            await self._deliver(TopicPartition(*tp), found, generation)
        rest = runtime.stats.last_poll + FETCH_GAP - asyncio.get_running_loop().time()
        if rest > 0 and brought < SLOT:
            await asyncio.sleep(rest)

    async def _place(self, active: set[Any]) -> None:
        """Set positions: only here, between two fetches, or a fetch of the old position comes back after the seek."""
        runtime = self.assignment_of_feed
        for tp in active:
            partition = runtime.parts.get(tp)
            if partition is None or not partition.reseek:
                continue
            if await runtime.membership.seek(partition.tp, partition.progress.read):
                self._read_offset[tp] = partition.progress.read
                partition.reseek = False

    async def _out_of_range(self, exc: Any) -> None:
        for tp in exc.args[0] if exc.args else ():
            try:
                await self.assignment_of_feed.trimmed(TopicPartition(*tp))
            except BrokerError as why:
                log.warning("finding out where the log begins: %s", why)
                await asyncio.sleep(0.2)

    async def _deliver(self, tp: TopicPartition, records: list[Any], generation: int) -> None:
        runtime = self.assignment_of_feed
        at = 0
        while at < len(records):
            partition = runtime.parts.get(tp)
            if partition is None:
                return
            stale = runtime.live != generation or self.generation() != generation or not self.flow_active
            if stale or partition.reseek or runtime.bytes_full(partition):
                partition.reseek = True  # what is dropped here must be read again
                return
            chunk, sizes, at = _chunk(records, at, partition.progress.read)
            if not chunk:
                continue
            slot = partition.add(chunk, sizes)  # registered before delivery: offered again if Faust drops it with its generation
            self._read_offset[tp] = slot.end
            runtime.stats.saw_end(tp, max(slot.end, self._thread._ensure_consumer().last_stable_offset(tp) or 0))
            runtime.room(partition)
            await self.wait_first(self.callback(self._message(slot, generation)), self.suspend_flow.wait())
            runtime.checkpoint("read.handed")

    @staticmethod
    def _message(slot: RecordSlot, generation: int) -> Any:
        tp = slot.partition.tp
        last = slot.offsets[-1]
        return ConsumerMessage(
            tp.topic, tp.partition, last, 0.0, 0, [], None, slot, None, tp=TP(*tp), generation_id=generation
        )


def _chunk(records: list[Any], at: int, read: int) -> tuple[list[Any], list[int], int]:
    """The next list to hand over, at most SLOT records and about SLOT_BYTES, their sizes, and where the rest begins.

    Records below `read` were handed over before: the same offset is never accepted twice.
    """
    chunk: list[Any] = []
    sizes: list[int] = []
    total = 0
    while at < len(records) and len(chunk) < SLOT and total < SLOT_BYTES:
        record = records[at]
        at += 1
        if record.offset >= read:
            size = memory_size(record)
            chunk.append(record)
            sizes.append(size)
            total += size
    return chunk, sizes, at


class Transport(driver.Transport):
    """Registered as `headrace://` by topics/transport/app.py, through Faust's own registry of transports."""

    Consumer = Consumer
