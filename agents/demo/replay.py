"""Sends a plan to Kafka at its pace and notes where each record went."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer

from agents.demo.drafts import Planned
from agents.demo.ledger import Place
from agents.demo.plan import Plan
from schemas.errors import BrokerError

Note = Callable[[Place, Planned], None]
_UNCONFIRMED = 2_000
"""Most records under way: a broker that falls behind slows the replay down instead of filling memory."""


class Replay:
    """One producer. `topics` gives the broker's name of each logical topic; `note` hears of every confirmed record.

    `written` counts confirmed records, `sent` those of them that are owed an outcome. Raises BrokerError naming the topic where a
    record was not taken.
    """

    def __init__(self, connection: Mapping[str, Any], topics: Mapping[str, str], note: Note) -> None:
        self._producer = AIOKafkaProducer(**connection, acks="all", linger_ms=0, request_timeout_ms=10_000)
        self._topics = topics
        self._note = note
        self._room = asyncio.Semaphore(_UNCONFIRMED)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._failed: BrokerError | None = None
        self.sent = self.written = 0

    async def __aenter__(self) -> Replay:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # whatever was not confirmed has been reported by then
            await self._producer.stop()

    async def ahead(self, plan: Plan) -> None:
        """Send what is there before the clock starts, as fast as it goes, and wait until it is written."""
        for planned in plan.ahead:
            await self._send(planned)
        await self._settle()

    async def timed(self, plan: Plan) -> None:
        """Send the rest, each record at its second from now, and wait until all is written."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for planned in plan.timed:
            early = start + planned.after - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            await self._send(planned)
        await self._settle()

    async def _send(self, planned: Planned) -> None:
        if self._failed is not None:
            raise self._failed
        await self._room.acquire()
        topic = self._topics[planned.topic]
        try:
            pending = await self._producer.send(topic, key=planned.key, value=planned.value)
        except Exception as error:
            raise BrokerError(f"sending a record to {topic}: {error}") from error
        self._under_way.add(pending)
        pending.add_done_callback(partial(self._confirmed, planned))

    def _confirmed(self, planned: Planned, pending: asyncio.Future[Any]) -> None:
        self._under_way.discard(pending)
        self._room.release()
        if pending.cancelled():
            return
        error = pending.exception()
        if error is not None:
            self._failed = self._failed or BrokerError(f"sending a record to {self._topics[planned.topic]}: {error!r}")
            return
        told = pending.result()
        self.sent += planned.counted
        self.written += 1
        self._note((told.topic, told.partition, told.offset), planned)

    async def _settle(self) -> None:
        """Wait until nothing is under way. Raises what failed."""
        await asyncio.gather(*self._under_way, return_exceptions=True)  # `_confirmed` runs first, it was added first
        if self._failed is not None:
            raise self._failed
