"""What we ask of aiokafka's consumer and its group coordinator, in the consumer's own event loop.

The consumer lives in a thread of its own, so that heartbeats go on whatever the main loop does. Everything here hops there.
Uses `_coordinator` (generation, member_id, `_do_heartbeat`, `_do_commit_offsets`, `_rejoin_needed_fut`), `_client` and
`_subscription` of aiokafka 0.14.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.cluster import ClusterMetadata
from aiokafka.structs import OffsetAndMetadata

from schemas.errors import Fenced, OutcomeUnknown
from topics.handover import TopicPartition
from topics.publish.contract import Position
from topics.stable_offsets import stable_offsets

T = TypeVar("T")
_GONE = (kafka_errors.IllegalGenerationError, kafka_errors.UnknownMemberIdError, kafka_errors.CommitFailedError)


class Membership:
    """One member of one consumer group. `consumer` gives aiokafka's consumer, `loop` the loop it lives in.

    Every method raises OutcomeUnknown when there is no clear answer within `timeout` seconds.
    """

    def __init__(
        self, consumer: Callable[[], Any], loop: Callable[[], asyncio.AbstractEventLoop], *, timeout: float = 20.0
    ) -> None:
        self._consumer = consumer
        self._loop = loop
        self._timeout = timeout

    async def committed(self, tp: TopicPartition) -> Position | None:
        """What the group has committed; read it after the previous owner was fenced. Waits for transactions to end."""
        kafka_tp = KafkaTopicPartition(*tp)

        async def ask() -> Position | None:
            found = (await stable_offsets(self._consumer()._coordinator, [kafka_tp], timeout=self._timeout)).get(kafka_tp)
            return None if found is None else Position(found.offset, found.metadata)

        return await self._there(ask(), "reading the committed position")

    async def commit(self, tp: TopicPartition, position: Position) -> None:
        """Commit in the generation in which `tp` is assigned to us. Raises Fenced when we are not in it any more.

        The check and the building of the request happen in one step of the consumer's loop: a member that has left
        (generation -1) would otherwise be believed, and would move the position back.
        """
        kafka_tp = KafkaTopicPartition(*tp)

        async def go() -> None:
            consumer = self._consumer()
            coordinator = consumer._coordinator
            await coordinator.ensure_coordinator_known()
            if coordinator.generation < 0 or kafka_tp not in consumer.assignment():
                raise Fenced(f"committing {tp.topic}/{tp.partition}: not a member of the group any more")
            offsets = {kafka_tp: OffsetAndMetadata(position.offset, position.metadata)}
            try:
                await coordinator._do_commit_offsets(consumer._subscription.subscription.assignment, offsets)
            except _GONE as exc:
                raise Fenced(f"committing {tp.topic}/{tp.partition}: {exc!r}") from exc

        await self._there(go(), "committing")

    async def owns(self, tp: TopicPartition) -> bool:
        """Asked of the coordinator now: still a member, with `tp`. A rebalance may be under way; a commit still counts."""
        kafka_tp = KafkaTopicPartition(*tp)

        async def ask() -> bool:
            consumer = self._consumer()
            coordinator = consumer._coordinator
            before = coordinator.generation
            return bool(
                before >= 0
                and kafka_tp in consumer.assignment()
                and await coordinator._do_heartbeat()
                and coordinator.generation == before
                and kafka_tp in consumer.assignment()
            )

        return await self._there(ask(), "asking for membership")

    async def settled(self, generation: int) -> bool:
        """Asked of the coordinator now: a member of this generation, with no rebalance under way."""

        async def ask() -> bool:
            coordinator = self._consumer()._coordinator
            return bool(
                coordinator.generation == generation
                and await coordinator._do_heartbeat()
                and coordinator.generation == generation
                and not coordinator._rejoin_needed_fut.done()
            )

        return await self._there(ask(), "asking for membership")

    async def log_bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """First offset that the log holds, and the one that a committed reader would get next."""
        kafka_tp = KafkaTopicPartition(*tp)

        async def ask() -> tuple[int, int]:
            consumer = self._consumer()
            first = await consumer.beginning_offsets([kafka_tp])
            end = await consumer.end_offsets([kafka_tp])
            return first[kafka_tp], end[kafka_tp]

        return await self._there(ask(), "asking where the log begins")

    async def ends(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset that a committed reader would get next, in one call; low by up to a batch on the embedded broker."""
        wanted = {KafkaTopicPartition(*tp): tp for tp in tps}

        async def ask() -> Mapping[TopicPartition, int]:
            return {wanted[found]: end for found, end in (await self._consumer().end_offsets(list(wanted))).items()}

        return await self._there(ask(), "asking where partitions end")

    async def partition_counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Topic -> number of partitions, 0 for one that is not there."""
        names = sorted(set(topics))

        async def ask() -> Mapping[str, int]:
            cluster = ClusterMetadata()
            if not await self._consumer()._client._metadata_update(cluster, names):
                raise OutcomeUnknown("asking for partition counts: no broker answered")
            return {name: len(cluster.partitions_for_topic(name) or ()) for name in names}

        return await self._there(ask(), "asking for partition counts")

    async def seek(self, tp: TopicPartition, offset: int) -> bool:
        """Set the position of the next fetch. False when the partition is not assigned just now."""

        async def go() -> bool:
            try:
                self._consumer().seek(KafkaTopicPartition(*tp), offset)
            except kafka_errors.IllegalStateError:
                return False
            return True

        return await self._there(go(), "seeking")

    async def _there(self, work: Coroutine[Any, Any, T], doing: str) -> T:
        """Run `work` in the consumer's loop, with a deadline."""
        loop = self._loop()
        try:
            if loop is asyncio.get_running_loop():
                return await asyncio.wait_for(work, self._timeout)
            return await asyncio.wait_for(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop)), self._timeout)
        except (kafka_errors.KafkaError, TimeoutError) as exc:
            raise OutcomeUnknown(f"{doing}: {exc!r}") from exc
