"""Budget: a day's money of one agent and tenant, reserved before each request and settled after it. Pure; no clock, no I/O.

The day's limit is split evenly over the partitions of the source topic, and a request is charged to the partitions of its
records. So workers share a budget without talking to each other, and whoever takes a partition goes on with what its receipts say
was spent. Amounts are whole millionths of a currency; a day is a text such as "2026-05-01".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import ConfigError


def split(amount: int, counts: Mapping[int, int]) -> dict[int, int]:
    """`amount` over partitions by their counts of records; the parts add up to it, each less than 1 from even."""
    whole = sum(counts.values())
    found: dict[int, int] = {}
    given = seen = 0
    for partition, count in counts.items():
        seen += count
        upto = amount * seen // whole
        found[partition] = upto - given
        given = upto
    return found


@dataclass(slots=True)
class Hold:
    """What one request has reserved, until it is settled."""

    day: str
    counts: Mapping[int, int]
    shares: Mapping[int, int]


@dataclass(slots=True)
class _Part:
    """One owned partition: what it may spend a day, and what it has spent by day."""

    allowance: int
    spent: dict[str, int]


class Budget:
    """`limit` is for a day and all partitions together. `soft` is the share of a partition's part from which on it is thrifty.

    Raises ConfigError for what is no share.
    """

    def __init__(self, limit: int, soft: float | None = None) -> None:
        if soft is not None and not 0 < soft <= 1:
            raise ConfigError(f"reading a budget: its soft limit is {soft!r}, it has to be a share above 0 and 1 at most")
        self.limit = limit
        self.soft = soft
        self.refused = 0
        self._parts: dict[int, _Part] = {}
        # Apart from the parts: a request goes on holding what it reserved when its partition is lost and taken again.
        self._held: dict[tuple[int, str], int] = {}

    def take(self, partition: int, of: int, spent: Mapping[str, int]) -> None:
        """A partition of `of` is ours now, with what was `spent` on it by day, as far as is known."""
        self._parts[partition] = _Part(self.limit // of, dict(spent))

    def lose(self, partition: int) -> None:
        """The partition is another's. Requests under way for it are settled by whoever reads their calls."""
        self._parts.pop(partition, None)

    def left(self, partition: int, day: str) -> int:
        """What a request for that partition may cost now; 0 for one that is not ours."""
        part = self._parts.get(partition)
        return max(0, part.allowance - part.spent.get(day, 0) - self._held.get((partition, day), 0)) if part else 0

    def allowance(self, partition: int) -> int:
        """What the partition may cost a day; 0 for one that is not ours."""
        part = self._parts.get(partition)
        return part.allowance if part else 0

    def thrifty(self, partition: int, day: str) -> bool:
        """Whether the partition has reached its soft limit, what its requests under way hold included; never without one.

        A partition that is not ours has: nothing may be spent on it.
        """
        if self.soft is None:
            return False
        allowance = self.allowance(partition)
        return allowance - self.left(partition, day) >= self.soft * allowance

    def short(self, counts: Mapping[int, int], amount: int, day: str) -> list[int]:
        """The partitions that can not pay their part of a request that costs `amount`, by its counts of records."""
        shares = split(amount, counts)
        return [partition for partition, share in shares.items() if self.left(partition, day) < max(1, share)]

    def reserve(self, counts: Mapping[int, int], amount: int, day: str) -> Hold | None:
        """Take `amount` for a request about so many records by partition; None where one of them has not that much left.

        A request that costs nothing passes as long as there is anything left.
        """
        if self.short(counts, amount, day):
            self.refused += 1
            return None
        shares = split(amount, counts)
        for partition, share in shares.items():
            self._held[partition, day] = self._held.get((partition, day), 0) + share
        return Hold(day, counts, shares)

    def settle(self, hold: Hold, amount: int) -> None:
        """The request has ended and cost `amount`: it is spent on the day on which it was reserved."""
        spent = split(amount, hold.counts)
        for partition, share in hold.shares.items():
            left = self._held.pop((partition, hold.day), 0) - share
            if left:
                self._held[partition, hold.day] = left
            part = self._parts.get(partition)
            if part is not None:
                part.spent[hold.day] = part.spent.get(hold.day, 0) + spent[partition]

    def spent(self, partition: int, since: str = "") -> dict[str, int]:
        """What was settled by day, from the day `since` on."""
        part = self._parts.get(partition)
        return {day: cost for day, cost in part.spent.items() if day >= since} if part else {}

    def total(self, day: str) -> int:
        """What was settled on a day, over the partitions that are ours."""
        return sum(part.spent.get(day, 0) for part in self._parts.values())

    def forget(self, before: str) -> None:
        """Drop the days before that one."""
        for part in self._parts.values():
            part.spent = {day: cost for day, cost in part.spent.items() if day >= before}
