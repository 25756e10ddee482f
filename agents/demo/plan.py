"""The whole replay, written down before it starts: which record goes to which topic when, and what must become of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from agents.demo.datasets import Credit, Milling
from agents.demo.drafts import Draft, Planned
from agents.demo.envelopes import Journal
from agents.demo.loans import loans
from agents.demo.readings import readings


@dataclass(frozen=True, slots=True)
class Plan:
    """Records in the order they are sent. `ahead` (customers of long standing) is sent before the clock starts."""

    ahead: tuple[Planned, ...]
    timed: tuple[Planned, ...]

    def __iter__(self) -> Iterator[Planned]:
        yield from self.ahead
        yield from self.timed

    @property
    def counted(self) -> int:
        """How many records are owed an outcome."""
        return sum(1 for record in self if record.counted)

    @property
    def broken(self) -> int:
        """How many of them are broken on purpose."""
        return sum(1 for record in self if record.fault is not None)


def build(credit: Credit, data: Milling, records: int, *, rate: float, start_ms: int, first_id: int = 1) -> Plan:
    """Plan `records` records of applications and readings in equal parts, at `rate` of them a second.

    `start_ms` is when the replay begins; event times follow from it. Customers' records come on top. Raises ValueError for
    fewer than one record or a rate that is not positive.
    """
    if records < 1 or not rate > 0:
        raise ValueError(f"planning a replay of {records} records at {rate} a second: both must be positive")
    half = (records + 1) // 2
    seconds = records / rate
    # Log positions grow with time over runs, so that a second replay on the same Kafka is not taken for an old one.
    journal = Journal(lsn=start_ms, transaction=start_ms // 1000)
    streams = (
        loans(credit.replay, half, journal, at_ms=start_ms, first_id=first_id),
        readings(data.replay, records - half, start_ms=start_ms, seconds=seconds),
    )
    timed: list[tuple[float, Draft]] = []
    for stream, many in zip(streams, (half, records - half), strict=True):
        for place, drafts in enumerate(stream):
            timed += ((place / many * seconds + draft.lag, draft) for draft in drafts)
    timed.sort(key=itemgetter(0))  # stable: what belongs to one key keeps its order
    return _rendered(timed, start_ms)


def _rendered(ordered: Iterable[tuple[float, Draft]], start_ms: int) -> Plan:
    """Render in the order of time: positions in the log of the database follow it."""
    ahead: list[Planned] = []
    timed: list[Planned] = []
    for after, draft in ordered:
        early = after == float("-inf")
        key, value = draft.render(start_ms - 60_000 if early else start_ms + int(after * 1000))
        planned = Planned(
            draft.topic, draft.what, draft.subject, draft.row, key, value, 0.0 if early else after, draft.fault, draft.values
        )
        (ahead if early else timed).append(planned)
    return Plan(tuple(ahead), tuple(timed))
