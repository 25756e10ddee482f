"""MemoryTable: a reference table without Kafka, for `headrace agents try` and for tests. The same rules as the stored one."""

from __future__ import annotations

from typing import Any

from schemas.change import Change
from topics.reference.rows import Precedence, StoredRow, Waiters, precedence, row_key
from topics.spec import TopicSpec


class MemoryTable:
    """Rows put in by hand, in the order of their log."""

    def __init__(self, spec: TopicSpec[Any]) -> None:
        self.spec = spec
        self._rows: dict[bytes, tuple[StoredRow, Change[Any]]] = {}
        self._waiters = Waiters()

    def put(self, change: Change[Any], *, partition: int = 0, offset: int = 0, timestamp: int = 0) -> bool:
        """Take a change in; False when it is an older one replayed, or its key is null. `timestamp` is the broker's record time,
        in place of a source time that is not known. Raises DataFault for a key that is none.
        """
        key = row_key(self.spec.key, change.key)
        if key is None:
            return False
        known = self._rows.get(key)
        if known is not None and precedence(known[1].source, change.source) is Precedence.REPLAYED:
            return False
        row, unavailable = (None, frozenset[str]()) if change.op == "d" else (change.after, change.unavailable)
        if row is not None and unavailable and known is not None and known[0].row is not None:
            before = known[0].row
            row = row.model_copy(update={name: getattr(before, name) for name in unavailable if name in type(row).model_fields})
            unavailable &= known[0].unavailable
        ts_ms = change.source.ts_ms if change.source.ts_ms is not None else timestamp
        stored = StoredRow(row, self.spec.topic, partition, offset, ts_ms, row is None, unavailable)
        self._rows[key] = (stored, change)
        if row is not None:
            self._waiters.arrived(key)
        return True

    def get(self, key: Any) -> StoredRow | None:
        """See Table."""
        wanted = row_key(self.spec.key, key)
        found = self._rows.get(wanted) if wanted is not None else None
        return found[0] if found is not None else None

    async def wait_for(self, key: Any, timeout: float) -> StoredRow | None:
        """See Table."""
        wanted = row_key(self.spec.key, key)
        found = self.get(key)
        if wanted is not None and timeout > 0 and (found is None or found.deleted):
            await self._waiters.wait(wanted, timeout)
            found = self.get(key)
        return found
