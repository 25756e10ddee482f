"""RawRecord: the shape of a Kafka record before anything is decoded. aiokafka's ConsumerRecord has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class RawRecord(Protocol):
    """One record as read. `timestamp` is epoch milliseconds; `headers` keeps order and repeats."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Raw:
    """A RawRecord that did not come from a broker: tests, `headrace agents try`."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = field(default=())
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
