"""Draft and Planned: a record of the replay before and after its time is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

What = Literal["customer", "application", "amendment", "write-back", "withdrawal", "deletion", "tombstone", "reading"]
Rendered = tuple[bytes | None, bytes | None]
"""Key and value of a Kafka record."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A record to be. `render` gives key and value once the moment is known, in epoch milliseconds.

    `topic` is logical. `row` is the number of the data set's row that it is made from. `fault` names how it was broken on
    purpose; such a record must become a dead letter. `values` is the row that a good one must decode to (None where it carries
    none). `lag` shifts it in the replay, in seconds.
    """

    topic: str
    what: What
    subject: str
    row: int
    render: Callable[[int], Rendered]
    fault: str | None = None
    values: Mapping[str, Any] | None = None
    lag: float = 0.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A record of the replay, `after` so many seconds from its start."""

    topic: str
    what: What
    subject: str
    row: int
    key: bytes | None
    value: bytes | None
    after: float
    fault: str | None = None
    values: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def counted(self) -> bool:
        """Whether an agent owes it an outcome; a customer's row is looked up, not decided."""
        return self.what != "customer"

    def bare(self) -> Planned:
        """Without what was sent: all that is remembered of it once it is written."""
        return replace(self, key=None, value=None, values=None)


def dice(*names: object) -> float:
    """A number in [0, 1) that depends on the names only: what is ours in the data is the same in every run."""
    digest = sha256(":".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def broken_places(count: int, kinds: tuple[str, ...], every: int = 50) -> dict[int, str]:
    """Which of `count` records are broken, and how: one in `every`, at least one of eight or more, all kinds in turn."""
    many = count // every or (1 if count >= 8 else 0)
    return {int((index + 0.5) * count / many): kinds[index % len(kinds)] for index in range(many)}
