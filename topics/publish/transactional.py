"""Exactly once: outcomes, receipt and position are one transaction of a producer that only the owner of the partition has.

aiokafka sends no group generation with offsets (KIP-447), so what fences is the transactional id: one per source partition.
Starting the producer ends whatever the previous owner left open, so the committed position read after it is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.structs import OffsetAndMetadata

from schemas.errors import Fenced
from topics.handover import Outbound, TopicPartition
from topics.publish import producer as producers
from topics.publish.contract import Checkpoint, Limits, Position, Promise, Publisher, no_checkpoint


def transactional_id(group: str, tp: TopicPartition) -> str:
    """The same for every owner of a source partition: that is what fences."""
    return f"{group}-{tp.topic}-{tp.partition}"


class Transactional:
    """Opens transactional publishers.

    `connection` are aiokafka's connection settings, `timeout` bounds each start and each commit in seconds. It is long on
    purpose: giving up after 2 s instead of 20 made a broker restart cost 10,615 repeated model calls in one measurement.
    """

    promise: Promise = "exactly-once"

    def __init__(
        self,
        connection: Mapping[str, Any],
        group: str,
        *,
        limits: Limits,
        timeout: float = 20.0,
        transaction_timeout: float = 60.0,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> None:
        self.connection = connection
        self.group = group
        self.limits = limits
        self.timeout = timeout
        self.transaction_timeout = transaction_timeout
        self.checkpoint = checkpoint

    async def open(self, tp: TopicPartition) -> Publisher:
        """Start the producer, which fences the previous owner and aborts what it left open."""
        settings = {
            **self.connection,
            "transactional_id": transactional_id(self.group, tp),
            "transaction_timeout_ms": int(self.transaction_timeout * 1000),
        }
        return _TransactionalPublisher(self, tp, await producers.start(settings, self.timeout))


class _TransactionalPublisher:
    def __init__(self, owner: Transactional, tp: TopicPartition, producer: Any) -> None:
        self._owner = owner
        self._tp = tp
        self._producer = producer
        self._discarded = False

    async def publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        """One transaction. Offsets go after the sends are confirmed: no NotEnoughReplicas retries then."""
        await self._guarded(self._publish(records, receipt, position), "publishing")

    async def probe(self, position: Position) -> None:
        """A transaction that changes nothing: if it commits, no other producer has started since."""
        await self._guarded(self._probe(position), "probing")

    async def discard(self) -> None:
        """Drop the producer; an open transaction is aborted by the next owner's start or by its timeout."""
        if not self._discarded:
            self._discarded = True
            await producers.discard(self._producer)

    async def _guarded(self, work: Awaitable[None], doing: str) -> None:
        where = f"{doing} for {self._tp.topic}/{self._tp.partition}"
        try:
            await asyncio.wait_for(work, self._owner.timeout)
        except Exception as exc:  # aiokafka raises many kinds; each gets its place in our tree
            if producers.died_fenced(self._producer):
                raise Fenced(f"{where}: another producer has taken over") from exc
            raise producers.classify(exc, where) from exc

    async def _publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        checkpoint = self._owner.checkpoint
        await self._producer.begin_transaction()
        await producers.send(self._producer, [*records, receipt], self._tp.partition, self._owner.limits)
        checkpoint("publish.sends")
        await self._send_offsets(position)
        checkpoint("publish.offsets")
        checkpoint("publish.commit.before")
        await self._producer.commit_transaction()
        checkpoint("publish.commit.after")

    async def _probe(self, position: Position) -> None:
        await self._producer.begin_transaction()
        await self._send_offsets(position)
        await self._producer.commit_transaction()

    async def _send_offsets(self, position: Position) -> None:
        offsets = {KafkaTopicPartition(*self._tp): OffsetAndMetadata(position.offset, position.metadata)}
        await self._producer.send_offsets_to_transaction(offsets, self._owner.group)
