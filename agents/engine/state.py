"""What one partition's records have left behind for the next: repeats, last watched values, windows; derived from the log.

`PartitionState.feed` is called for every decoded value in the order of the log, with the record's offset: first for the
`horizon` offsets before the start (what it says of them is thrown away), then for each record handed over, done already or
not. Its answer for the record at offset n is a function of the values at offsets [n - horizon, n], so a successor that
reads the horizon back skips, and sees, exactly what its predecessor would have. What never became a value (a fault, a
lying clock, a control record) is not fed.

The rules, in this order, each an outcome by itself:

`duplicate`         an equal event id at one of the `dedupe` offsets before (or earlier in the same record). Repeats count as
                    seen as well: the rule at n looks at raw records only, not at what was decided about them.
`unwatched-change`  an update whose watched fields equal the row before it, or a snapshot's re-read (op r) of a row seen within
                    `watch_lookback` offsets with equal watched fields. "The row before" is the change's own `before`, else the
                    subject's last row within the lookback; where neither is known the update counts as a change. A column
                    that the source did not send (`unavailable`) is unchanged. An insert is always a change. What the
                    agent's `when` looks at belongs in `watch`: a row that becomes decidable by an unwatched field alone is
                    skipped here.
`window-cool-down`  see windows.py. A skipped record is still a sample of the windows, except a duplicate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from pydantic import BaseModel

from agents.engine.spec import DecisionAgent, Skip, WindowView
from agents.engine.windows import WindowSet
from schemas.change import Change
from schemas.errors import AgentError
from schemas.event import Event
from schemas.reading import Reading
from topics.spec import TopicSpec

DUPLICATE: Final = Skip("duplicate")
UNWATCHED: Final = Skip("unwatched-change")
COOLED_DOWN: Final = Skip("window-cool-down")
RULES: Final = (DUPLICATE.rule, UNWATCHED.rule, COOLED_DOWN.rule)
"""Every rule that this file can skip a record by."""


@dataclass(frozen=True, slots=True)
class Passed:
    """No rule skips this record; `views` are the agent's windows at it (none for a deleted row)."""

    views: Mapping[str, WindowView] = field(default_factory=dict)


Fate = Passed | Skip
"""What becomes of one value: go on with these views, or skip it by this rule."""
_PASSED: Final = Passed()
_UNKNOWN: Final = object()
"""A watched column that the source did not send: only an equal absence is equal to it."""


class Seen:
    """The event ids of the last `reach` offsets."""

    __slots__ = ("_last", "_order", "_reach")

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._last: dict[str, int] = {}
        self._order: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def repeat(self, event_id: str, offset: int) -> bool:
        """Whether this id was seen at [offset - reach, offset]; it is seen now. An empty id is never a repeat."""
        oldest = offset - self._reach
        order, last = self._order, self._last
        while order and order[0][0] < oldest:
            gone, name = order.popleft()
            if last[name] == gone:
                del last[name]
        if not event_id:
            return False
        found = last.get(event_id)
        if found != offset:
            last[event_id] = offset
            order.append((offset, event_id))
        return found is not None


class Watched:
    """The watched values of each subject's last row, as far as the last `lookback` offsets know them."""

    __slots__ = ("_fields", "_last", "_lookback", "_order", "_values")

    def __init__(self, fields: tuple[str, ...], lookback: int) -> None:
        self._fields = fields
        self._lookback = lookback
        self._values = attrgetter(*fields) if len(fields) > 1 else _single(fields[0])
        self._last: dict[str, tuple[int, tuple[object, ...]]] = {}
        self._order: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def changed(self, change: Change[Any], subject: str, offset: int) -> bool:
        """Whether this change is one, for the watched fields. It is the subject's last row from now on; a delete leaves none."""
        self._trim(offset - self._lookback)
        if change.op == "d" or change.after is None:
            # its place in the order stays: whatever comes next for this subject counts as a change
            self._last.pop(subject, None)
            return True
        now = self._values(change.after)
        if change.unavailable:
            now = tuple(_UNKNOWN if f in change.unavailable else v for f, v in zip(self._fields, now, strict=True))
        known = self._last.get(subject)
        if known is None or known[0] != offset:
            self._order.append((offset, subject))
        self._last[subject] = (offset, now)
        if change.op == "c":
            return True
        if change.op == "u" and change.before is not None:
            return not _equal(self._values(change.before), now)
        if known is None:
            return change.op == "r" or any(v is not _UNKNOWN for v in now)
        return not _equal(known[1], now)

    def _trim(self, oldest: int) -> None:
        order, last = self._order, self._last
        while order and order[0][0] < oldest:
            gone, subject = order.popleft()
            entry = last.get(subject)
            if entry is not None and entry[0] == gone:
                del last[subject]


def _single(name: str) -> Any:
    """Like attrgetter of several names, for one: always a tuple."""
    get = attrgetter(name)
    return lambda row: (get(row),)


def _equal(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    """Field by field; one that was not sent now has not changed, one that was not known before has."""
    return before == now or all(b == n or n is _UNKNOWN for b, n in zip(before, now, strict=True))


class PartitionState:
    """The state of one agent over one partition of what it reads."""

    def __init__(self, agent: DecisionAgent[Any, Any, Any], reads: TopicSpec[Any], *, log_start: int = 0) -> None:
        """`reads` is the agent's topic as placed at this site; `log_start` the log's first offset, set again when it grows.

        Raises AgentError when `watch` names what is not a field of the row, ConfigError for a window that can not be.
        """
        for name in agent.watch:
            if reads.row is not None and name not in reads.row.model_fields:
                raise AgentError(f"reading agent {agent.name}: watch names {name!r}, which {reads.row.__name__} does not have")
        self._log_start = self._log_start_before = log_start
        self._windows = WindowSet(agent.windows)
        self._has_windows = bool(agent.windows)
        self._seen = Seen(reads.dedupe) if reads.dedupe > 0 else None
        self._watched = Watched(agent.watch, agent.watch_lookback) if agent.watch and reads.kind == "change" else None
        watch = agent.watch_lookback if self._watched is not None else 0
        # an unwatched change takes no bucket of a cool-down, so a cool-down reaches as far as what it looks at reaches
        gate = self._windows.gate_lookback + watch if self._windows.gate_lookback else 0
        self.horizon = max(reads.dedupe, 0) + max(self._windows.lookback, watch, gate)
        """How many offsets before the first one must be fed for the state to be exact."""

    @property
    def log_start(self) -> int:
        """Where the log begins for records from there on: when it was taken, or where a later loss to retention ends.

        Set it to the partition's `log_start` before feeding what the partition hands over. Records below a new value were read
        before the loss, so their windows are judged by the value before it.
        """
        return self._log_start

    @log_start.setter
    def log_start(self, offset: int) -> None:
        if offset > self._log_start:
            self._log_start_before, self._log_start = self._log_start, offset

    def __len__(self) -> int:
        """Entries held: bounded by the lookbacks, whatever the stream."""
        parts = (self._windows, self._seen, self._watched)
        return sum(len(p) for p in parts if p is not None)

    def feed(
        self,
        value: Change[Any] | Reading[Any] | Event[Any],
        *,
        subject: str,
        offset: int,
        event_ms: int,
        evaluable: bool = True,
    ) -> Fate:
        """Take one value in and say what becomes of it. O(1) amortised; raises only what a window's `urgent` raises.

        Offsets must not decrease; the parts of one record come in their order, each with the record's offset. `event_ms` is what
        the record itself says (epoch milliseconds). `evaluable` is False where the agent's `when` refuses the value: it then
        takes no bucket of a cool-down from a later one. It must be the same when the record is fed again.
        """
        if self._seen is not None and self._seen.repeat(value.event_id, offset):
            return DUPLICATE
        row: BaseModel | None
        unwatched = False
        if isinstance(value, Change):
            row = value.after if value.op != "d" else None
            if self._watched is not None:
                unwatched = not self._watched.changed(value, subject, offset)
        else:
            row = value.row
        if row is None or not self._has_windows:
            return UNWATCHED if unwatched else _PASSED
        log_start = self._log_start if offset >= self._log_start else self._log_start_before
        observed = self._windows.observe(
            subject, offset, event_ms, row, log_start=log_start, evaluable=evaluable and not unwatched
        )
        if unwatched:
            return UNWATCHED
        return COOLED_DOWN if observed.cool_down else Passed(observed.views)
