"""A partition and its slots without Kafka, for an engine that is driven by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from topics.handover import Finished, Slot, TopicPartition
from topics.record import Raw


class LonePartition(ABC):
    """Partition 0 of a topic that has no other, empty before it was taken. Subclasses say what a finished record is to them."""

    start = log_start = 0
    topic_partitions = 1
    dead = False

    def __init__(self, topic: str = "orders") -> None:
        self.tp = TopicPartition(topic, 0)

    @abstractmethod
    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        """A record has its outcome."""

    def is_done(self, slot: Slot, index: int) -> bool:
        """Nothing was before."""
        return False

    def limit(self, topic: str) -> int:
        """Bytes of a value: more than anything here has."""
        return 1_000_000

    async def read_back(self, count: int) -> AsyncIterator[Sequence[Raw]]:
        """There is nothing behind the start."""
        return
        yield


@dataclass(frozen=True)
class ListedSlot:
    """A slot of records that were written down."""

    records: Sequence[Raw]
    partition: LonePartition
