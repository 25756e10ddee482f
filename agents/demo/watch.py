"""The demo's subscriber: reads the agents' outbound topics as a business system would, committed records only, in no group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.demo.ledger import Arrived
from schemas.errors import TopicError

Take = Callable[[Arrived, float], object]


class Watch:
    """Hands each record that becomes visible after `start` to `take`, with the epoch milliseconds at which it did."""

    def __init__(self, connection: Mapping[str, Any], topics: Iterable[str], take: Take) -> None:
        self._consumer = AIOKafkaConsumer(
            **connection, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=50, max_partition_fetch_bytes=4 * 1024 * 1024,
        )  # fmt: skip
        self._topics = tuple(topics)
        self._take = take
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Stand at the end of every partition, then read on in the background. Raises TopicError for a missing topic."""
        await self._consumer.start()
        places = [place for topic in self._topics for place in await self._partitions(topic)]
        self._consumer.assign(places)
        for place, end in (await self._consumer.end_offsets(places)).items():
            self._consumer.seek(place, end)
        self._task = asyncio.create_task(self._read())

    async def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The end offset of each partition of these topics."""
        places = [place for topic in topics for place in await self._partitions(topic)]
        return {(place.topic, place.partition): end for place, end in (await self._consumer.end_offsets(places)).items()}

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

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        # Metadata may lag behind the creation of a topic by a moment.
        for _ in range(50):
            numbers = self._consumer.partitions_for_topic(topic)
            if numbers:
                return [TopicPartition(topic, number) for number in sorted(numbers)]
            await self._consumer._client.force_metadata_update()
            await asyncio.sleep(0.05)
        raise TopicError(f"subscribing to {topic}: the topic does not exist; headrace topics apply creates it")

    async def _read(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=200)
            now_ms = time.time() * 1000
            for records in fetched.values():
                for record in records:
                    self._take(record, now_ms)
