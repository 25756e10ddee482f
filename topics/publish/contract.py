"""Publisher: one source partition's way out. Two implementations, one contract suite (tests/contract/test_publishers.py).

Promises, whatever the implementation:

1. `open` returns only after whoever published for this partition before can do so no more (exactly once), or after this
   member is known to own it (at least once). The committed position is to be read after it.
2. `publish` returns only after every record and the position are confirmed by the broker. Whatever it raises, nothing of
   that commit counts as done.
3. `Fenced` means that the partition is another's. `OutcomeUnknown` means that nobody knows: open a new publisher, read what
   was committed, and go on from there. A publisher that raised is not used again.
4. `discard` sends nothing more, not even what is buffered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from topics.handover import Outbound, TopicPartition

Promise = Literal["exactly-once", "at-least-once"]
Checkpoint = Callable[[str], None]
"""Called at named points, so that a test can stop or kill the process there. It does nothing in production."""
CHECKPOINTS = ("take.start", "read.handed", "publish.sends", "publish.offsets", "publish.commit.before", "publish.commit.after")


def no_checkpoint(name: str) -> None:
    """The Checkpoint of production."""


class Position(NamedTuple):
    """A committed position: the next offset to read and the commit's metadata."""

    offset: int
    metadata: str


class Group(Protocol):
    """What a publisher needs of the consumer group. Raises OutcomeUnknown where the broker did not answer clearly."""

    async def committed(self, tp: TopicPartition) -> Position | None:
        """What the group has committed, None if nothing."""
        ...

    async def commit(self, tp: TopicPartition, position: Position) -> None:
        """Commit as a member of the current generation that owns `tp`, or raise Fenced and commit nothing."""
        ...

    async def owns(self, tp: TopicPartition) -> bool:
        """Asked of the coordinator now: are we still a member of the generation that assigned `tp` to us."""
        ...


class Publisher(Protocol):
    """The way out of one source partition, opened by a Publishing."""

    async def publish(self, records: Sequence[Outbound], receipt: Outbound, position: Position) -> None:
        """Publish all to the partition number of the source, and commit. Raises Fenced or OutcomeUnknown."""
        ...

    async def probe(self, position: Position) -> None:
        """Show that `position` is still what is committed and that we may go on. Raises Fenced or OutcomeUnknown."""
        ...

    async def discard(self) -> None:
        """Send nothing more and give the connection back. Never raises. Safe to call twice."""
        ...


class Publishing(Protocol):
    """Opens publishers of one promise."""

    @property
    def promise(self) -> Promise:
        """What the receipts say."""
        ...

    async def open(self, tp: TopicPartition) -> Publisher:
        """A publisher for one source partition. Raises OutcomeUnknown when the broker can not be reached in time."""
        ...


Limits = Mapping[str, int]
"""Topic -> the largest record it takes."""
