"""At least once, for brokers without transactions: outcomes confirmed, then the receipt, then the position.

A crash between two of the steps repeats the last flush under the same decision ids; the reader's rule is that the first
decision with an id stands. A member that has left its group could still commit, and would move the position back: so every
commit goes through the Group, which checks membership in the same step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from schemas.errors import Fenced, OutcomeUnknown
from topics.handover import Outbound, TopicPartition
from topics.publish import producer as producers
from topics.publish.contract import Checkpoint, Group, Limits, Position, Promise, Publisher, no_checkpoint


class AtLeastOnce:
    """Opens publishers with a producer each that waits for all replicas.

    Not an idempotent one: the embedded broker refuses its InitProducerId, as do clusters that forbid idempotent writes. What
    that adds are repeats of a batch whose confirmation was lost, which this promise allows anyway. aiokafka has one batch of
    a partition under way at a time, so nothing overtakes.
    """

    promise: Promise = "at-least-once"

    def __init__(
        self,
        connection: Mapping[str, Any],
        group: Group,
        *,
        limits: Limits,
        timeout: float = 20.0,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> None:
        self.connection = connection
        self.group = group
        self.limits = limits
        self.timeout = timeout
        self.checkpoint = checkpoint

    async def open(self, tp: TopicPartition) -> Publisher:
        """Start a producer. It fences nobody: the group's generation has to."""
        settings = {**self.connection, "acks": "all"}
        return _AtLeastOncePublisher(self, tp, await producers.start(settings, self.timeout))


class _AtLeastOncePublisher:
    def __init__(self, owner: AtLeastOnce, tp: TopicPartition, producer: Any) -> None:
        self._owner = owner
        self._tp = tp
        self._producer = producer
        self._discarded = False

    async def publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        """Three confirmed steps. Whatever fails, all of it is repeated, under the same ids."""
        await self._guarded(self._publish(records, receipt, position), "publishing")

    async def probe(self, position: Position) -> None:
        """Nobody else has committed since: the position is still ours."""
        await self._guarded(self._probe(position), "probing")

    async def discard(self) -> None:
        """Drop the producer without flushing."""
        if not self._discarded:
            self._discarded = True
            await producers.discard(self._producer)

    async def _guarded(self, work: Awaitable[None], doing: str) -> None:
        try:
            await asyncio.wait_for(work, self._owner.timeout)
        except Exception as exc:  # aiokafka raises many kinds; each gets its place in our tree
            raise producers.classify(exc, f"{doing} for {self._tp.topic}/{self._tp.partition}") from exc

    async def _publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        owner, partition = self._owner, self._tp.partition
        if not await owner.group.owns(self._tp):
            raise OutcomeUnknown(f"publishing for {self._tp.topic}/{partition}: not a member of the generation that owns it")
        if records:
            await producers.send(self._producer, records, partition, owner.limits)
        owner.checkpoint("publish.sends")
        await producers.send(self._producer, [receipt], partition, owner.limits)
        owner.checkpoint("publish.offsets")
        owner.checkpoint("publish.commit.before")
        await owner.group.commit(self._tp, position)
        owner.checkpoint("publish.commit.after")

    async def _probe(self, position: Position) -> None:
        found = await self._owner.group.committed(self._tp)
        if found is None or found.offset != position.offset or found.metadata not in ("", position.metadata):
            raise Fenced(f"probing {self._tp.topic}/{self._tp.partition}: {found} was committed meanwhile")
