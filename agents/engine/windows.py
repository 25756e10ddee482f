"""Windows: the recent records of one subject, as a function of the partition's last offsets only.

What a window holds at offset n is defined without reference to any earlier state, so a successor that reads the same
offsets back computes the same windows:

- the *slice* of a window at n are the records at offsets [n - lookback, n] of that subject, n included;
- its *samples* are those of the slice whose event time lies in (t - span, t], where t is the event time of the record at n,
  ordered by event time, records of one event time in the order of the log. So a late record sees what was known up to its own
  time, and takes its place among the samples of records after it;
- with `every`, the record at n is evaluated only if no other record of its subject in the slice before it lies in its bucket
  (floor(t / every), urgent(row)), where `urgent` is None if the window has none: what is urgent has a bucket of its own.
  Buckets are of event time, so the record decides the same whenever it is read. With several such windows each must let it pass.
  A record that can not be evaluated anyway (the agent's `when` refused it) takes no bucket.

Memory: no sample older than the longest lookback, in offsets, is kept beyond the next record of the partition.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, overload

from pydantic import BaseModel

from agents.engine.duration import millis
from agents.engine.spec import Sample, Window, WindowView
from schemas.errors import ConfigError

_event_ms = itemgetter(0)
_offset = itemgetter(1)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the windows say of one record. With `cool_down` the record is to be skipped and there are no views."""

    views: Mapping[str, WindowView]
    cool_down: bool


COOL_DOWN = Observed({}, cool_down=True)
_EMPTY = Observed({}, cool_down=False)


class _Log:
    """The entries of one subject in log order. Appended to, and replaced when trimmed: a view holds on to what it saw."""

    __slots__ = ("descent", "entries", "stale")

    def __init__(self) -> None:
        self.entries: list[Sample] = []
        self.stale = 0
        """How many entries at the head are beyond the longest lookback."""
        self.descent = 0
        """Index of the last entry whose event time is before its predecessor's; 0 where there is none."""

    def append(self, entry: Sample) -> None:
        entries = self.entries
        if entries and entry[0] < entries[-1][0]:
            self.descent = len(entries)
        entries.append(entry)

    def drop_head(self) -> bool:
        """Forget the oldest entry. True when nothing is left. Copies only after half has become stale: O(1) amortised."""
        self.stale += 1
        if self.stale * 2 >= len(self.entries):
            if self.stale == len(self.entries):
                return True
            self.entries = self.entries[self.stale :]
            self.descent = max(0, self.descent - self.stale)
            self.stale = 0
        return False


class Samples(Sequence[Sample]):
    """The samples of one view, cut out and ordered when first looked at, and the same whatever is observed later."""

    __slots__ = ("_cut", "_descent", "_entries", "_first", "_from_ms", "_stop", "_to_ms")

    def __init__(self, entries: list[Sample], stop: int, descent: int, first: int, from_ms: int, to_ms: int) -> None:
        self._entries = entries
        self._stop = stop
        self._descent = descent
        self._first = first
        self._from_ms = from_ms
        self._to_ms = to_ms
        self._cut: tuple[Sample, ...] | None = None

    def _samples(self) -> tuple[Sample, ...]:
        if self._cut is None:
            entries, stop = self._entries, self._stop
            start = bisect_left(entries, self._first, 0, stop, key=_offset)
            if self._descent <= start:
                start = bisect_right(entries, self._from_ms, start, stop, key=_event_ms)
                within = entries[start:stop]
            else:
                # a late record is among them; the sort is stable, so equal times stay in the order of the log
                within = [e for e in entries[start:stop] if self._from_ms < e[0] <= self._to_ms]
                within.sort(key=_event_ms)
            self._cut = tuple(within)
            self._entries = []
        return self._cut

    def __len__(self) -> int:
        return len(self._samples())

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples())

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self._samples()[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Samples | tuple | list):
            return self._samples() == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._samples())

    def __repr__(self) -> str:
        return repr(self._samples())


class _Buckets:
    """Where each (subject, bucket of event time, what is urgent) was last seen, for one window's `every`."""

    __slots__ = ("_every", "_last", "_lookback", "_order", "urgent")

    def __init__(self, every: int, lookback: int, urgent: Callable[[Any], str | None] | None) -> None:
        self._every = every
        self._lookback = lookback
        self.urgent = urgent
        self._last: dict[tuple[str, int, str | None], int] = {}
        self._order: deque[tuple[int, tuple[str, int, str | None]]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def taken(self, subject: str, offset: int, event_ms: int, urgent: str | None) -> bool:
        """Whether the slice before this record has one in its bucket. The record now counts for those after it."""
        oldest = offset - self._lookback
        order, last = self._order, self._last
        while order and order[0][0] < oldest:
            gone, bucket = order.popleft()
            if last[bucket] == gone:
                del last[bucket]
        mine = (subject, event_ms // self._every, urgent)
        taken = mine in last
        if not taken or last[mine] != offset:  # several parts of one record need one entry
            last[mine] = offset
            order.append((offset, mine))
        return taken


class WindowSet:
    """The windows of one agent over one partition. Offsets must not decrease; parts of one record share their offset."""

    def __init__(self, windows: Mapping[str, Window]) -> None:
        """Raises ConfigError for a span or a bucket that is not a duration above zero, or a lookback that is negative."""
        self._windows = [(name, w.lookback, _span(name, "span", w.span)) for name, w in windows.items()]
        for name, lookback, _ in self._windows:
            if lookback < 0:
                raise ConfigError(f"reading window {name!r}: lookback is a number of offsets, not {lookback}")
        self._gates = [
            _Buckets(_span(n, "every", w.every), w.lookback, w.urgent) for n, w in windows.items() if w.every is not None
        ]
        self.lookback = max((w.lookback for w in windows.values()), default=0)
        """Offsets before a record that its views depend on."""
        self.gate_lookback = max((w.lookback for w in windows.values() if w.every is not None), default=0)
        """Offsets before a record that its cool-down depends on."""
        self._logs: dict[str, _Log] = {}
        self._order: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        """Samples held, of all subjects."""
        return len(self._order)

    def observe(
        self, subject: str, offset: int, event_ms: int, row: BaseModel, *, log_start: int, evaluable: bool = True
    ) -> Observed:
        """Take one record in and say what the windows hold at it.

        `log_start` is the first offset that the log held for this record (see PartitionState.log_start): a view whose slice
        begins before it is `truncated`. `evaluable` False: the record will not be evaluated whatever the windows say, so it
        takes no bucket. Raises what a window's `urgent` raises, before the record is taken in.
        """
        if not self._windows:
            return _EMPTY
        urgent = [gate.urgent(row) if gate.urgent is not None else None for gate in self._gates] if evaluable else ()
        self._trim(offset - self.lookback)
        log = self._logs.get(subject)
        if log is None:
            log = self._logs[subject] = _Log()
        log.append(Sample(event_ms, offset, row))
        self._order.append((offset, subject))
        if evaluable:
            cool_down = False
            for gate, why in zip(self._gates, urgent, strict=True):  # each one must see the record
                if gate.taken(subject, offset, event_ms, why):
                    cool_down = True
            if cool_down:
                return COOL_DOWN
        entries, descent = log.entries, log.descent
        stop = len(entries)
        views: dict[str, WindowView] = {}
        for name, lookback, span in self._windows:
            first, from_ms = offset - lookback, event_ms - span
            samples = Samples(entries, stop, descent, first, from_ms, event_ms)
            views[name] = WindowView(name, from_ms, event_ms, samples, log_start > max(0, first))
        return Observed(views, cool_down=False)

    def _trim(self, oldest: int) -> None:
        """Forget what lies before offset `oldest`."""
        order, logs = self._order, self._logs
        while order and order[0][0] < oldest:
            subject = order.popleft()[1]
            if logs[subject].drop_head():
                del logs[subject]


def _span(name: str, what: str, text: str) -> int:
    """A duration above zero in milliseconds."""
    ms = millis(text)
    if ms <= 0:
        raise ConfigError(f"reading window {name!r}: {what} {text!r} must be longer than nothing")
    return ms
