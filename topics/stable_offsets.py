"""OffsetFetch version 7 with require_stable (KIP-447), which aiokafka 0.14 has not: committed offsets that are final.

A broker answers a commit before the transaction's marker has reached the group's state, and a fetch without require_stable
then still tells the offset from before it. With it the broker says that the offset is not stable, and we ask again. Brokers
older than 2.5 do not know version 7; they are asked as aiokafka asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest_v3
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import OffsetAndMetadata

API_KEY = 9
UNSTABLE = 88
"""UNSTABLE_OFFSET_COMMIT: a transaction that holds an offset of this partition has not ended; aiokafka has no class for it."""
_ASK_AGAIN = 0.02
_TAGS = ("tags", TaggedFields)


class OffsetFetchResponse7(Response):  # type: ignore[misc]  # aiokafka publishes no types
    """For each topic (partition, offset, leader epoch, metadata, error code), and an error code for the whole group."""

    API_KEY = API_KEY
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("error_code", Int16),
        _TAGS,
    )


class OffsetFetchRequest7(RequestStruct):  # type: ignore[misc]  # aiokafka publishes no types
    """Version 7 as it goes over the wire."""

    API_KEY = API_KEY
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse7
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        ("topics", CompactArray(("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), _TAGS)),
        ("require_stable", Boolean),
        _TAGS,
    )


class StableOffsetFetch(Request[OffsetFetchRequest_v3 | OffsetFetchRequest7]):  # type: ignore[misc]  # aiokafka publishes no types
    """`topics` are (topic, [partition number]). The connection picks the highest version that the broker knows."""

    API_KEY = API_KEY

    def __init__(self, group: str, topics: Sequence[tuple[str, list[int]]]) -> None:
        self._group = group
        self._topics = topics

    def build(self, request_struct_class: type[Any]) -> Any:
        """The struct of the version that both sides know."""
        if request_struct_class is OffsetFetchRequest_v3:
            return request_struct_class(self._group, self._topics)
        return request_struct_class(self._group, [(*topic, {}) for topic in self._topics], True, {})


async def stable_offsets(
    coordinator: Any, tps: Iterable[TopicPartition], *, timeout: float = 60.0
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed, every transaction that had begun to commit included; a partition without is left out.

    `coordinator` is the group coordinator of a consumer of aiokafka (its `_coordinator`), asked in that consumer's loop.
    Waits up to `timeout` seconds for open transactions of the group to end; then raises TimeoutError. Raises aiokafka's errors
    where the broker refuses.
    """
    wanted: dict[str, list[int]] = {}
    for tp in tps:
        wanted.setdefault(tp.topic, []).append(tp.partition)
    if not wanted:
        return {}
    request = StableOffsetFetch(coordinator.group_id, list(wanted.items()))
    async with asyncio.timeout(timeout):
        while True:
            await coordinator.ensure_coordinator_known()
            try:
                found = _offsets(await coordinator._send_req(request))
            except kafka_errors.KafkaError as error:
                if isinstance(error, kafka_errors.NotCoordinatorForGroupError):
                    coordinator.coordinator_dead()
                if not error.retriable:
                    raise
                found = None
            if found is not None:
                return found
            await asyncio.sleep(_ASK_AGAIN)


def _offsets(answer: Any) -> dict[TopicPartition, OffsetAndMetadata] | None:
    """The offsets in an answer of either version; None when one of them is not stable yet. Raises the answer's first error."""
    _raise(answer.error_code)
    found = {}
    for topic, partitions, *_ in answer.topics:
        for number, offset, *rest in partitions:
            metadata, error = rest[1:3] if isinstance(answer, OffsetFetchResponse7) else rest
            if error == UNSTABLE:
                return None
            _raise(error)
            if offset >= 0:
                found[TopicPartition(topic, number)] = OffsetAndMetadata(offset, metadata or "")
    return found


def _raise(code: int) -> None:
    """Nothing committed for a topic that the broker does not know is no error."""
    if code and code != kafka_errors.UnknownTopicOrPartitionError.errno:
        raise kafka_errors.for_code(code)()


__all__ = ["StableOffsetFetch", "stable_offsets"]
