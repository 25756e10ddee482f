"""A Handler and helpers for tests of topics/transport: what it was offered, and answers when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.receipt import Position, Receipt
from topics.handover import Bounds, Feed, Finished, Outbound, OwnedPartition, Slot, TopicPartition
from topics.record import RawRecord
from topics.stable_offsets import stable_offsets
from topics.transport.app import FeedApp, make_app


@dataclass(frozen=True)
class Plain:
    """A broker without security."""

    bootstrap: str

    def aiokafka_kwargs(self) -> dict[str, Any]:
        """Nothing to add."""
        return {}


Answer = Callable[[RawRecord], Finished]


class Echo:
    """Finishes each record with a copy of it on `out`, at once or `delay` seconds later; `hold(record)` keeps it open."""

    def __init__(self, out: str, *, delay: float = 0.0, hold: Callable[[RawRecord], bool] | None = None) -> None:
        self.out = out
        self.delay = delay
        self.hold = hold or (lambda record: False)
        self.answer: Answer = lambda r: Finished((Outbound(out, r.key, r.value, (("at", where(r)),), "decision"),))
        self.offered: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int]] = []
        self.held: list[tuple[Slot, int]] = []
        self.taken: list[TopicPartition] = []
        self.lost: list[TopicPartition] = []
        self.open: set[asyncio.Task[None]] = set()
        self.waiting: list[tuple[Slot, int]] = []
        self.running = False
        self.on_take: Callable[[OwnedPartition], Any] | None = None

    async def take(self, partition: OwnedPartition) -> None:
        """Remember it."""
        self.taken.append(partition.tp)
        if self.on_take is not None:
            await self.on_take(partition)

    def offer(self, slot: Slot) -> None:
        """Ask about each record that is not done."""
        for index, record in enumerate(slot.records):
            self.offered.append((record.partition, record.offset))
            if slot.partition.is_done(slot, index):
                continue
            if self.hold(record):
                self.held.append((slot, index))
            elif self.running:
                self.ask(slot, index)
            else:
                self.waiting.append((slot, index))

    def ask(self, slot: Slot, index: int) -> None:
        """One call."""
        record = slot.records[index]
        self.asked.append((record.partition, record.offset))
        if not self.delay:
            slot.partition.finish(slot, index, self.answer(record))
            return

        async def later() -> None:
            await asyncio.sleep(self.delay)
            slot.partition.finish(slot, index, self.answer(record))

        task = asyncio.create_task(later())
        self.open.add(task)
        task.add_done_callback(self.open.discard)

    def let_go(self) -> None:
        """Ask about what was held."""
        held, self.held = self.held, []
        for slot, index in held:
            if not slot.partition.dead:
                self.ask(slot, index)

    def lose(self, tp: TopicPartition) -> None:
        """Forget it."""
        self.lost.append(tp)
        self.waiting = [item for item in self.waiting if item[0].partition.tp != tp]
        self.held = [item for item in self.held if item[0].partition.tp != tp]

    def pause(self) -> None:
        """Start nothing."""
        self.running = False

    def resume(self) -> None:
        """Go on."""
        self.running = True
        waiting, self.waiting = self.waiting, []
        for slot, index in waiting:
            self.ask(slot, index)

    async def settle(self, timeout: float) -> int:
        """Wait for calls in flight."""
        if self.open:
            await asyncio.wait(list(self.open), timeout=timeout)
        return len(self.open)

    def references(self) -> Sequence[Position]:
        """One table."""
        return (Position(name="customer", topic="customers", partition=0, offset=7),)

    def spend(self, tp: TopicPartition) -> Mapping[str, int]:
        """Nothing is asked."""
        return {}


def where(record: RawRecord) -> bytes:
    """The coordinates of a record as a header's value."""
    return b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset)


@dataclass
class Site:
    """Topics of one test on one broker: source, outbound and receipts of `partitions` each."""

    bootstrap: str
    name: str
    partitions: int

    @property
    def source(self) -> str:
        """Read."""
        return f"{self.name}.src"

    @property
    def out(self) -> str:
        """Written."""
        return f"{self.name}.out"

    @property
    def receipts(self) -> str:
        """Written."""
        return f"{self.name}.receipts"

    def feed(self, **rest: Any) -> Feed:
        """A feed over these topics."""
        rest.setdefault("worker", "w1")
        rest.setdefault("drain_seconds", 3.0)
        return Feed(
            agent="echo",
            version=1,
            group=f"{self.name}.group",
            source=self.source,
            receipts=self.receipts,
            outbound=(self.out,),
            **rest,
        )

    async def produce(self, count: int, *, partition: int | None = None, size: int = 20, keys: int = 8, first: int = 0) -> None:
        """Records `first`.. with a key, spread over the partitions by key number."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=2)
        await producer.start()
        try:
            futures = []
            for i in range(first, first + count):
                to = i % keys % self.partitions if partition is None else partition
                value = b"%d:%s" % (i, b"x" * size)
                futures.append(await producer.send(self.source, value, key=b"k%d" % (i % keys), partition=to))
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    async def read(self, topic: str) -> list[Any]:
        """All committed records of a topic, by partition and offset."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            tps = [KafkaTopicPartition(topic, p) for p in range(self.partitions)]
            consumer.assign(tps)
            ends = await self._ends(consumer, tps)
            found: list[Any] = []
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
        finally:
            await consumer.stop()
        return sorted(found, key=lambda r: (r.partition, r.offset))

    async def _ends(self, consumer: Any, tps: list[Any], seconds: float = 30.0) -> Any:
        """Ends for a committed reader, once no transaction is open: its markers come some ms after the commit returned.

        Raises TimeoutError when one stays open.
        """
        plain = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await plain.start()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    ends = await consumer.end_offsets(tps)
                    if ends == await plain.end_offsets(tps):
                        return ends
                    await asyncio.sleep(0.05)
        finally:
            await plain.stop()

    async def read_receipts(self) -> dict[int, list[Receipt]]:
        """Receipts by partition, in order."""
        found: dict[int, list[Receipt]] = {p: [] for p in range(self.partitions)}
        for record in await self.read(self.receipts):
            found[record.partition].append(Receipt.model_validate_json(record.value))
        return found

    async def committed(self) -> dict[int, tuple[int, str]]:
        """Committed offset and metadata by partition, with what a transaction that has just returned committed.

        The broker answers a commit before the group knows its offsets; it is asked until it calls them stable.
        """
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=f"{self.name}.group", enable_auto_commit=False)
        await consumer.start()
        try:
            tps = [KafkaTopicPartition(self.source, p) for p in range(self.partitions)]
            found = await stable_offsets(consumer._coordinator, tps)
            return {tp.partition: (at.offset, at.metadata) for tp, at in found.items()}
        finally:
            await consumer.stop()


async def make_site(bootstrap: str, *, partitions: int = 2, out_partitions: int | None = None, configs: Any = None) -> Site:
    """Create the topics of a test."""
    site = Site(bootstrap, f"t{uuid.uuid4().hex[:10]}", partitions)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        counts = {site.source: partitions, site.out: out_partitions or partitions, site.receipts: partitions}
        configs = configs or {}
        await admin.create_topics(
            [
                NewTopic(name, count, 1, topic_configs=configs.get(name.removeprefix(site.name + ".")))
                for name, count in counts.items()
            ]
        )
    finally:
        await admin.close()
    await asyncio.sleep(0.3)
    return site


@contextlib.asynccontextmanager
async def running(site: Site, handler: Any, delivery: Any, data_dir: Any, **rest: Any) -> AsyncIterator[FeedApp]:
    """The app, started in this event loop and stopped (drained) at the end."""
    feed = rest.pop("feed", None) or site.feed()
    rest.setdefault("session_timeout", 6.0)
    rest.setdefault("rebalance_timeout", 4.0)
    app = make_app(feed, handler, kafka=Plain(site.bootstrap), delivery=delivery, data_dir=data_dir, **rest)
    app.finalize()
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def until(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    """Wait for it, and say so when it does not come."""
    async with asyncio.timeout(timeout):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.02)


__all__ = ["Bounds", "Echo", "Plain", "Site", "make_site", "running", "until", "where"]
