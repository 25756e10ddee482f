"""Joins: the rows of reference tables that belong to a record.

The key that a join's `on` gives is compared with the primary key of the row in the canonical form of `row_key`: 7, (7,) and
{"id": 7} are one key, and the parts of a composite key are a tuple in the order of the topic's key columns.

A row has an age: the record's event time less the row's source time, 0 where the row is the newer one. It is `stale` above the
join's `max_age` and is handed over nevertheless. A row that was never read, was deleted, or does not fit its model any more is
`missing`; the decision names the position of what said so. Only a missing row is waited for, up to the join's `wait` each, all
joins of a record at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agents.engine.duration import millis
from agents.engine.spec import DecisionAgent, Join, Joined
from schemas.dead_letter import Fault
from schemas.errors import AgentError, DataFault
from topics.reference.memory import MemoryTable
from topics.reference.rows import StoredRow, Table

__all__ = ["Joins", "MemoryTable", "StoredRow", "Table"]

_NOTHING: Mapping[str, Joined] = {}


class _One:
    """One join, ready to be asked."""

    __slots__ = ("max_age_ms", "name", "on", "table", "topic", "wait")

    def __init__(self, name: str, join: Join, table: Table) -> None:
        self.name = name
        self.topic = join.topic.topic
        self.on: Callable[[Any], Any] = join.on
        self.wait = millis(join.wait) / 1000
        self.max_age_ms = millis(join.max_age) if join.max_age is not None else None
        self.table = table

    def key(self, value: Any) -> Any:
        """What to look up; DataFault when the agent's function fails on this value."""
        try:
            return self.on(value)
        except Exception as error:
            fault = Fault("join", "join-failed", f"on() of join {self.name} raised {type(error).__name__}", field=self.name)
            raise DataFault(fault) from error

    def missing(self, row: StoredRow | None) -> bool:
        """Whether there is no row to hand over."""
        return row is None or row.row is None

    def joined(self, row: StoredRow | None, event_ms: int) -> Joined:
        """What the agent is told."""
        if row is None:
            return Joined("missing", topic=self.topic)
        age = max(0, event_ms - row.ts_ms)
        if row.row is None:
            return Joined("missing", None, row.topic, row.partition, row.offset, age)
        stale = self.max_age_ms is not None and age > self.max_age_ms
        return Joined("stale" if stale else "found", row.row, row.topic, row.partition, row.offset, age)


class Joins:
    """The joins of one agent. Holds no state of its own."""

    def __init__(self, agent: DecisionAgent[Any, Any, Any], tables: Mapping[str, Table]) -> None:
        """`tables` by the name of the join. Raises AgentError for a join whose table is not there."""
        for name, join in agent.joins.items():
            if name not in tables:
                raise AgentError(f"reading agent {agent.name}: join {name!r} has no table of topic {join.topic.name!r}")
        self._all = [_One(name, join, tables[name]) for name, join in agent.joins.items()]

    def now(self, value: Any, event_ms: int) -> tuple[Mapping[str, Joined], bool]:
        """The rows as they are now, and whether they can be used: False when a missing one is to be waited for.

        `event_ms` is the record's event time, epoch milliseconds. Raises DataFault(join) for a value that no key can be made of.
        """
        if not self._all:
            return _NOTHING, True
        out: dict[str, Joined] = {}
        complete = True
        for one in self._all:
            key = one.key(value)
            row = one.table.get(key) if key is not None else None
            if one.wait and key is not None and one.missing(row) and not _hopeless(row, key):
                complete = False
            out[one.name] = one.joined(row, event_ms)
        return out, complete

    async def wait(self, value: Any, event_ms: int, waited: float = 0.0) -> Mapping[str, Joined]:
        """The rows once all are there, or what there is when each missing one has been waited for. Raises DataFault(join).

        `waited` are the seconds since the record was handed over: they are part of what a join waits, so that records behind
        one another do not each wait anew.
        """
        rows = await asyncio.gather(*(self._row(one, one.key(value), waited) for one in self._all))
        return {one.name: one.joined(row, event_ms) for one, row in zip(self._all, rows, strict=True)}

    async def _row(self, one: _One, key: Any, waited: float) -> StoredRow | None:
        if key is None:
            return None
        row = one.table.get(key)
        if one.wait > waited and one.missing(row) and not _hopeless(row, key):
            row = await one.table.wait_for(key, one.wait - waited)
        return row


def _hopeless(row: StoredRow | None, key: Any) -> bool:
    """What waiting will not mend: a composite key with a null in it never has a row, a row that does not fit is there."""
    if row is not None:
        return row.fault is not None
    parts = key.values() if isinstance(key, Mapping) else key if isinstance(key, list | tuple) else ()
    return any(part is None for part in parts)
