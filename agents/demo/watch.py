"""The demo's subscriber: reads the agents' outbound topics as a business system would, committed records only, in no group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agents.demo.ledger import Arrived
from schemas.errors import TopicError
from topics.ends import end_offsets

Take = Callable[[Arrived, float], object]


class Watch:
    """`start`, then `listen`. `ends` are the end offsets at the start, by (topic, partition), of the outbound topics and of
    `others`, which are not read."""

    def __init__(self, connection: Mapping[str, Any], topics: Iterable[str], others: Iterable[str]) -> None:
        self._connection = connection
        self._consumer = AIOKafkaConsumer(
            **connection, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=50, max_partition_fetch_bytes=4 * 1024 * 1024,
        )  # fmt: skip
        self._topics = set(topics)
        self._others = set(others)
        self._task: asyncio.Task[None] | None = None
        self.ends: dict[tuple[str, int], int] = {}

    async def start(self) -> None:
        """Stand at the end of every partition. Raises TopicError for a missing topic."""
        places = await self._places()
        await self._consumer.start()
        ends = await end_offsets(self._connection, places)
        self.ends = {(place.topic, place.partition): end for place, end in ends.items()}
        self._consumer.assign([place for place in places if place.topic in self._topics])
        for place in self._consumer.assignment():
            self._consumer.seek(place, ends[place])

    def listen(self, take: Take) -> None:
        """From now on hand each new record to `take`, with the epoch milliseconds at which it became visible."""
        self._task = asyncio.create_task(self._read(take))

    def check(self) -> None:
        """Raises what ended the reading, if anything did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    async def close(self) -> None:
        """Stop reading. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()

    async def _places(self) -> list[TopicPartition]:
        wanted = sorted(self._topics | self._others)
        admin = AIOKafkaAdminClient(**self._connection)
        await admin.start()
        try:
            found = {told["topic"]: told["partitions"] for told in await admin.describe_topics(wanted) if not told["error_code"]}
        finally:
            await admin.close()
        missing = [topic for topic in wanted if not found.get(topic)]
        if missing:
            raise TopicError(f"subscribing: no such topic as {', '.join(missing)}; headrace topics apply creates them")
        return [TopicPartition(topic, each["partition"]) for topic in wanted for each in found[topic]]

    async def _read(self, take: Take) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=200)
            now_ms = time.time() * 1000
            for records in fetched.values():
                for record in records:
                    take(record, now_ms)
