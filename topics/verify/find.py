"""Finding single records: by coordinates, by time, or from the newest back, always groupless and read committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError
from topics.ends import end_offsets
from topics.record import RawRecord
from topics.tolerant.consumer import TolerantConsumer
from topics.verify.read import STALL_SECONDS, shapes

CHUNK = 20_000
"""Offsets that are read at a time on the way back."""
MOST_LATE = 10_000
"""Records in a row that are later than those looked for, before no more are looked for."""
FAR = 60_000
"""Milliseconds by which the clocks of workers may differ, so that nothing is said of a record that is late by less."""


@asynccontextmanager
async def finder(client: Mapping[str, Any]) -> AsyncIterator[Finder]:
    """A Finder over a cluster. `client` are aiokafka's connection arguments. Raises BrokerError when brokers do not answer."""
    reader = TolerantConsumer(
        **client, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest",
        fetch_max_wait_ms=50, max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    try:
        await reader.start()
        yield Finder(client, reader)
    except KafkaError as error:
        raise BrokerError(f"looking for records: {error!r}") from error
    finally:
        await reader.stop()


class Finder:
    """Reads one partition after the other with one consumer. `read` counts the records that came, for whoever tells of it."""

    def __init__(self, client: Mapping[str, Any], reader: Any) -> None:
        self._client = client
        self._reader = reader
        self._known: dict[str, tuple[int, ...]] = {}
        self._bounds: dict[TopicPartition, tuple[int, int]] = {}
        self.read = 0

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic; none where it does not exist."""
        if topic not in self._known:
            self._known[topic] = (await shapes(self._client, [topic]))[topic].partitions
        return [TopicPartition(topic, number) for number in self._known[topic]]

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """The first offset that the log holds, and the one behind its last committed record. Read once."""
        if tp not in self._bounds:
            begin = (await self._reader.beginning_offsets([tp]))[tp]
            self._bounds[tp] = begin, (await end_offsets(self._client, [tp]))[tp]
        return self._bounds[tp]

    async def record(self, topic: str, partition: int, offset: int) -> RawRecord | None:
        """The record at these coordinates; None where the log does not hold it (any more)."""
        tp = TopicPartition(topic, partition)
        if tp not in await self.partitions(topic):
            return None
        begin, end = await self.bounds(tp)
        if not begin <= offset < end:
            return None
        async for batch in self.between(tp, offset, offset + 1):
            return batch[0]
        return None

    async def since(self, tp: TopicPartition, ms: int) -> int:
        """The first offset of a record not older than `ms` (epoch milliseconds): where to begin to look.

        That is the log's first offset where the broker can not tell, or has no such record.
        """
        begin, _ = await self.bounds(tp)
        try:
            found = (await self._reader.offsets_for_times({tp: max(0, ms)})).get(tp)
        except (KafkaError, ValueError):
            return begin  # the embedded broker's clock is not asked to be right: then the whole log is looked through
        return begin if found is None or found.offset < 0 else max(begin, int(found.offset))

    async def between(self, tp: TopicPartition, first: int, end: int) -> AsyncIterator[Sequence[RawRecord]]:
        """The records in [first, end) that the log holds, in order. Raises BrokerError without progress."""
        begin, last = await self.bounds(tp)
        at, end = max(first, begin), min(end, last)
        if at >= end:
            return
        reader, loop = self._reader, asyncio.get_running_loop()
        reader.assign([tp])
        reader.seek(tp, at)
        moved = loop.time()
        while at < end:
            batch = [r for r in (await reader.getmany(tp, timeout_ms=500, max_records=5000)).get(tp, []) if r.offset < end]
            position = await reader.position(tp)
            if position > at:
                moved, at = loop.time(), position
            elif loop.time() - moved > STALL_SECONDS:
                raise BrokerError(f"reading {tp.topic}/{tp.partition}: no progress at offset {at} for {STALL_SECONDS:.0f} s")
            if batch:
                self.read += len(batch)
                yield batch

    async def near(self, tp: TopicPartition, begin: int, end: int, passed: Counter[TopicPartition]) -> AsyncIterator[RawRecord]:
        """The records of [begin, end] (epoch milliseconds of their own times), in log order.

        A time is what its writer says: one that is late ends nothing, only MOST_LATE in a row do. `passed` counts those far
        behind `end` that others of [begin, end] came after.
        """
        late = far = 0
        async for batch in self.between(tp, await self.since(tp, begin), 1 << 62):
            for record in batch:
                if record.timestamp > end:
                    late, far = late + 1, far + (record.timestamp > end + FAR)
                    if late >= MOST_LATE:
                        return
                    continue
                if far:
                    passed[tp] += far
                late = far = 0
                yield record

    async def back(
        self, tps: Iterable[TopicPartition], most: int
    ) -> AsyncGenerator[tuple[TopicPartition, Sequence[RawRecord]], None]:
        """The newest `most` offsets of each partition, a piece of each in turn, newest piece first; a piece is in log order."""
        left = {tp: (await self.bounds(tp))[1] for tp in tps}
        stops = {tp: max((await self.bounds(tp))[0], end - most) for tp, end in left.items()}
        while left:
            for tp, end in list(left.items()):
                first = max(stops[tp], end - CHUNK)
                piece: list[RawRecord] = []
                async for batch in self.between(tp, first, end):
                    piece += batch
                if first <= stops[tp]:
                    del left[tp]
                else:
                    left[tp] = first
                yield tp, piece
