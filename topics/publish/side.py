"""What is published beside the outcomes: audits of model calls when they end, and manifests at the start.

Calls must not wait for a transaction (a call that was paid for is recorded even if its outcomes are lost), and a slow broker
must not hold up answers: at most `limit` records wait, what comes beyond is counted and dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.errors import BrokerError

log = logging.getLogger(__name__)
Record = tuple[str, bytes | None, bytes]
"""Topic, key, value."""


class SidePublisher:
    """One producer and a bounded queue. Not idempotent, since the embedded broker knows none: a call may be recorded twice.

    `connection` are aiokafka's connection arguments. What was offered ends as one of `published` (confirmed by the broker),
    `dropped` (too much waited, or the end came first) and `failed`, each counted by topic; a scrape's thread reads them too.
    """

    def __init__(self, connection: Mapping[str, Any], *, limit: int = 10_000) -> None:
        self._connection = dict(connection)
        self._queue: asyncio.Queue[Record] = asyncio.Queue(limit)
        self._producer: Any = None
        self._task: asyncio.Task[None] | None = None
        self.published: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._offered: Counter[str] = Counter()
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []

    async def start(self) -> None:
        """Connect. Raises what aiokafka raises when the broker can not be reached."""
        self._producer = AIOKafkaProducer(**self._connection, acks="all", linger_ms=20, request_timeout_ms=10_000)
        await self._producer.start()
        self._task = asyncio.create_task(self._run())

    def unpublished(self, topic: str) -> int:
        """How many records of a topic were not published, as far as is known."""
        return self.dropped[topic] + self.failed[topic]

    async def settled(self, topic: str) -> None:
        """Wait until all records that were offered so far for a topic have ended as one of the three."""
        if self._over(topic) >= self._offered[topic]:
            return
        ended = asyncio.get_running_loop().create_future()
        self._waiting.append((topic, self._offered[topic], ended))
        await ended

    def _over(self, topic: str) -> int:
        return self.published[topic] + self.unpublished(topic)

    def _tell(self) -> None:
        """Something has ended: those who waited for it go on."""
        waiting, self._waiting = self._waiting, []
        for topic, count, ended in waiting:
            if ended.done():
                continue  # whoever waited has given up
            if self._over(topic) >= count:
                ended.set_result(None)
            else:
                self._waiting.append((topic, count, ended))

    def offer(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Publish soon, or drop and count when too much waits. Never blocks, never raises."""
        self._offered[topic] += 1
        try:
            self._queue.put_nowait((topic, key, value))
        except asyncio.QueueFull:
            self.dropped[topic] += 1
            self._tell()

    async def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Publish now and wait for the broker's confirmation. Raises BrokerError."""
        try:
            await self._producer.send_and_wait(topic, value=value, key=key)
        except Exception as error:
            raise BrokerError(f"publishing to {topic}: {error!r}") from error

    async def _run(self) -> None:
        while True:
            topic, key, value = await self._queue.get()
            try:
                sent = await self._producer.send(topic, value=value, key=key)
                sent.add_done_callback(partial(self._confirmed, topic))
            except asyncio.CancelledError:
                self.dropped[topic] += 1
                raise
            except Exception as error:  # noqa: BLE001 - an audit record that can not be sent must not end the worker
                self._failure(topic, error)
                self._tell()
            finally:
                self._queue.task_done()

    def _confirmed(self, topic: str, sent: asyncio.Future[Any]) -> None:
        if sent.cancelled():
            self.dropped[topic] += 1
        elif (error := sent.exception()) is not None:
            self._failure(topic, error)
        else:
            self.published[topic] += 1
        self._tell()

    def _failure(self, topic: str, error: BaseException) -> None:
        if not self.failed.total():
            log.warning("publishing a side record: %r; further failures are only counted", error)
        self.failed[topic] += 1

    async def stop(self, timeout: float = 5.0) -> None:
        """Flush what waits, for at most `timeout` seconds, and disconnect. Safe to call twice."""
        if self._task is None:
            return
        task, self._task = self._task, None
        try:
            await asyncio.wait_for(self._queue.join(), timeout)
        except TimeoutError:
            while not self._queue.empty():
                self.dropped[self._queue.get_nowait()[0]] += 1
            self._tell()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await asyncio.wait_for(self._producer.stop(), timeout)
        except TimeoutError:
            log.warning("flushing side records: given up after %.0f s", timeout)
