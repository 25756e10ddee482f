"""The whole replay, made record by record while it runs: which goes to which topic when, and what must become of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from agents.demo import loans, readings
from agents.demo.datasets import Credit, Milling
from agents.demo.drafts import Draft, Planned, broken_places
from agents.demo.envelopes import Journal

_AHEAD = float("-inf")
_LSN_STEP = 136
"""What a change adds to the position in the log of the database (agents/demo/envelopes.py)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Records in the order they are sent, made anew at each pass over `ahead` and `timed`, the same ones each time.

    However many there are, only the few whose time is near are in memory. `counted` are owed an outcome, and `broken` of them
    are broken on purpose.
    """

    credit: Credit
    data: Milling
    counted: int
    rate: float
    start_ms: int
    first_id: int

    def __iter__(self) -> Iterator[Planned]:
        yield from self.ahead
        yield from self.timed

    @property
    def broken(self) -> int:
        """How many are broken on purpose."""
        half = self._applications
        return len(broken_places(half, loans.FAULTS)) + len(broken_places(self.counted - half, readings.FAULTS))

    @property
    def ahead(self) -> Iterator[Planned]:
        """Customers of long standing: sent before the clock starts."""
        # Log positions grow with time over runs, so that a second replay on the same Kafka is not taken for an old one.
        journal = Journal(lsn=self.start_ms, transaction=self.start_ms // 1000)
        for drafts in self._loans(journal):
            for draft in drafts:
                if draft.lag == _AHEAD:
                    yield _rendered(draft, self.start_ms - 60_000, 0.0)

    @property
    def timed(self) -> Iterator[Planned]:
        """The rest, each at its second. Rendered in the order of time: positions in the log of the database follow it."""
        # No application has more than one customer, so the log of `ahead` ends below this.
        half = self._applications
        journal = Journal(lsn=self.start_ms + _LSN_STEP * half, transaction=self.start_ms // 1000 + half)
        others = readings.readings(self.data.replay, self.counted - half, start_ms=self.start_ms, seconds=self._seconds)
        streams = (
            _ordered(self._loans(journal), half, self._seconds),
            _ordered(others, self.counted - half, self._seconds),
        )
        for after, draft in heapq.merge(*streams, key=itemgetter(0)):
            yield _rendered(draft, self.start_ms + int(after * 1000), after)

    @property
    def _applications(self) -> int:
        return (self.counted + 1) // 2

    @property
    def _seconds(self) -> float:
        return self.counted / self.rate

    def _loans(self, journal: Journal) -> Iterator[list[Draft]]:
        return loans.loans(self.credit.replay, self._applications, journal, at_ms=self.start_ms, first_id=self.first_id)


def build(credit: Credit, data: Milling, records: int, *, rate: float, start_ms: int, first_id: int = 1) -> Plan:
    """Plan `records` records of applications and readings in equal parts, at `rate` of them a second.

    `start_ms` is when the replay begins; event times follow from it. Customers' records come on top. Raises ValueError for
    fewer than one record or a rate that is not positive.
    """
    if records < 1 or not rate > 0:
        raise ValueError(f"planning a replay of {records} records at {rate} a second: both must be positive")
    return Plan(credit, data, records, rate, start_ms, first_id)


def _ordered(stream: Iterable[list[Draft]], many: int, seconds: float) -> Iterator[tuple[float, Draft]]:
    """Drafts with their seconds from the start, in the order of these: what lags behind waits here for its time."""
    late: list[tuple[float, int, Draft]] = []
    number = 0  # what has the same time keeps its order
    for place, drafts in enumerate(stream):
        now = place / many * seconds
        while late and late[0][0] <= now:
            yield late[0][0], heapq.heappop(late)[2]
        for draft in drafts:
            if draft.lag > 0:
                number += 1
                heapq.heappush(late, (now + draft.lag, number, draft))
            elif draft.lag != _AHEAD:
                yield now, draft
    while late:
        yield late[0][0], heapq.heappop(late)[2]


def _rendered(draft: Draft, at_ms: int, after: float) -> Planned:
    key, value = draft.render(at_ms)
    return Planned(draft.topic, draft.what, draft.subject, draft.row, key, value, after, draft.fault, draft.values)
