"""The seam between the Kafka side and the engine: what is handed over, what is handed back, and who may call what when.

Everything here runs in the main event loop. The transport owns positions, bounds, publishing and commits. The handler owns
decoding, order, batching and answers. The transport hands over each offset of a partition exactly once per ownership, in
order; the handler finishes each handed record exactly once, in any order, or never (then it is read again by a successor).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from schemas.receipt import Position
from schemas.values import value
from topics.record import RawRecord


class TopicPartition(NamedTuple):
    """A topic and a partition number."""

    topic: str
    partition: int


@value
class Outbound:
    """One record to publish. It goes to the partition number of its source record; `key` as given.

    `purpose` decides how the receipt counts it; audits count nowhere.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    purpose: Literal["decision", "dead_letter", "audit"]


@value
class Finished:
    """The outcome of one input record: what is published, or the rule that skipped it. Exactly one of the two is there.

    `part_skips` are (part, rule) of a record with several subjects some of which a rule skipped.
    """

    outbound: tuple[Outbound, ...] = ()
    skip: str | None = None
    part_skips: tuple[tuple[int, str], ...] = ()


class Slot(Protocol):
    """A list of records of one partition, in offset order, as handed over."""

    @property
    def records(self) -> Sequence[RawRecord]: ...
    @property
    def partition(self) -> OwnedPartition: ...


class OwnedPartition(Protocol):
    """One source partition for as long as nobody else owns it. It may survive rebalances that give it back."""

    @property
    def tp(self) -> TopicPartition: ...
    @property
    def dead(self) -> bool:
        """True once the partition is lost: finishing its records has no effect any more."""
        ...

    @property
    def start(self) -> int:
        """The first offset that will be handed over."""
        ...

    @property
    def log_start(self) -> int:
        """Where the log began when the partition was taken; raised while it is owned, when retention overtakes reading.

        What was read before that stays read: only for records at or above it does the log begin there.
        """
        ...

    @property
    def topic_partitions(self) -> int:
        """How many partitions its topic had when this one was taken: shares of limits and budgets go by it."""
        ...

    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        """The record `slot.records[index]` has its outcome. It is published and committed soon; memory is freed then.

        Raises RecordTooLarge, and takes nothing, when an outbound record can not fit its topic: finish with a dead letter
        instead (topics/dead_letters.py builds one that fits). Raises FatalError for a record that is finished already.
        After this call `slot.records[index]` may no longer be there.
        """
        ...

    def limit(self, topic: str) -> int:
        """The largest record that an outbound topic takes, in bytes as topics/publish/sizes.py counts them."""
        ...

    def is_done(self, slot: Slot, index: int) -> bool:
        """True for a record whose outcome an earlier owner has committed: feed it to windows, do not decide it."""
        ...

    def read_back(self, count: int) -> AsyncIterator[Sequence[RawRecord]]:
        """The records at offsets [start - count, start) that the log still holds, in order, read committed."""
        ...


class Handler(Protocol):
    """The engine, as the transport sees it. No method may raise for a data fault; an exception ends the process."""

    async def take(self, partition: OwnedPartition) -> None:
        """A partition is newly ours: rebuild its state (read_back) before this returns. No record comes before."""
        ...

    def offer(self, slot: Slot) -> None:
        """Records of a partition, in order. Must not block; what is done already (`is_done`) is among them."""
        ...

    def lose(self, tp: TopicPartition) -> None:
        """The partition is another's: forget its work. Answers still in flight for it are thrown away."""
        ...

    def pause(self) -> None:
        """A rebalance or a stop begins: start no new call. Safe to call twice."""
        ...

    def resume(self) -> None:
        """The assignment stands: go on, including with records kept from before."""
        ...

    async def settle(self, timeout: float) -> int:
        """Wait up to `timeout` seconds for calls in flight, deliver what they brought, return how many were left."""
        ...

    def references(self) -> Sequence[Position]:
        """How far the reference tables have been read: goes into receipts."""
        ...

    def spend(self, tp: TopicPartition) -> Mapping[str, int]:
        """What asking about its records has cost, by tenant and day, in millionths: goes into receipts."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be held per partition and per agent before reading pauses.

    `records` and `bytes` are over all partitions of one agent, `span` is offsets between the frontier and the last read
    of one partition, `metadata` the bytes of the commit's metadata the broker accepts.
    """

    records: int = 8192
    bytes: int = 64 * 1024 * 1024
    span: int = 50_000
    metadata: int = 4096


@dataclass(frozen=True, slots=True)
class Feed:
    """What the transport needs to know of one agent: its group, its topics, its bounds.

    `limits` are the outbound topics' max.message.bytes as configured; the broker is asked at each assignment that takes
    partitions, and what it tells counts instead. Where it does not tell (no right to, or no such topic yet), these do.
    `chained`: receipts carry the audit chain (topics/chain.py).
    """

    agent: str
    version: int
    group: str
    source: str
    receipts: str
    outbound: tuple[str, ...]
    bounds: Bounds = field(default_factory=Bounds)
    limits: Mapping[str, int] = field(default_factory=dict)
    run: str = "live"
    worker: str = ""
    commit_gap: float = 0.0
    chained: bool = False
    drain_seconds: float = 20.0
