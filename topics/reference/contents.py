"""What is in a reference table: takes records in the order of their log, answers lookups. Knows the store, not Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from schemas.change import Change
from schemas.dead_letter import Fault
from schemas.errors import DataFault
from topics.decode.result import Control, Decoded, Result
from topics.record import Raw, RawRecord
from topics.reference.entry import Entry, keep, pack, unpack
from topics.reference.rows import Precedence, StoredRow, Waiters, precedence, row_key
from topics.reference.store import Meta, Store
from topics.reference.trust import checksum
from topics.spec import TopicSpec

log = logging.getLogger(__name__)
Decode = Callable[[RawRecord], Result[Any]]
_SWEEP = 2000


class Contents:
    """The rows of one topic over one store. `take` then `flush`: what was taken is seen only once it is written."""

    def __init__(self, spec: TopicSpec[Any], decode: Decode, store: Store, meta: Meta, *, cache_rows: int) -> None:
        self._spec = spec
        self._decode = decode
        self._store = store
        self._cache: dict[bytes, StoredRow] = {}
        self._cache_rows = cache_rows
        self._pending: dict[bytes, Entry] = {}
        self._waiters = Waiters()
        self.meta = meta
        self.counts: Counter[str] = Counter()
        """What happened: rows, deletes, replayed, went-back, truncates, rebuilds, and fault:REASON for each bad record."""

    def get(self, key: Any) -> StoredRow | None:
        """See Table."""
        wanted = row_key(self._spec.key, key)
        return self._lookup(wanted) if wanted is not None else None

    async def wait_for(self, key: Any, timeout: float) -> StoredRow | None:
        """See Table."""
        wanted = row_key(self._spec.key, key)
        if wanted is None:
            return None
        found = self._lookup(wanted)
        if timeout > 0 and (found is None or found.deleted):
            await self._waiters.wait(wanted, timeout)
            found = self._lookup(wanted)
        return found

    def take(self, record: RawRecord) -> None:
        """One more record of the log. A bad one is counted and leaves the row as it was."""
        result = self._decode(record)
        if isinstance(result, Decoded):
            for value in result.values:
                if isinstance(value, Fault):
                    self._fault(record, value)
                elif isinstance(value, Change):
                    self._change(record, value)
        elif isinstance(result, Control):
            self._control(record, result)
        else:
            self._fault(record, result)
        partition = record.partition
        self.meta.positions[partition] = record.offset + 1
        self.meta.anchors[partition] = (record.offset, checksum(record))

    def flush(self) -> None:
        """Write what was taken, together with how far that is, and wake who waited for it."""
        self._store.write({key: pack(entry) for key, entry in self._pending.items()}, self.meta)
        for key, entry in self._pending.items():
            self._cache.pop(key, None)
            if not entry.deleted:
                self._waiters.arrived(key)
        self._pending.clear()

    async def sweep(self) -> None:
        """End a rebuild: forget the rows that an older generation left and this one did not find in the log."""
        gone: list[bytes] = []
        for number, (key, data) in enumerate(self._store.rows()):
            if unpack(data, self._spec.topic, records=False).generation != self.meta.generation:
                gone.append(key)
            if number % _SWEEP == _SWEEP - 1:
                await asyncio.sleep(0)
        # a row may have been written anew while this slept
        old = [k for k in gone if (e := self._entry(k)) is not None and e.generation != self.meta.generation]
        self._store.remove(old)
        for key in old:
            self._cache.pop(key, None)
        self.meta.building = False
        self.flush()

    def _lookup(self, key: bytes) -> StoredRow | None:
        found = self._cache.pop(key, None)
        if found is None:
            data = self._store.get(key)
            if data is None:
                return None
            found = self._resolve(key, unpack(data, self._spec.topic))
            if len(self._cache) >= self._cache_rows:
                del self._cache[next(iter(self._cache))]
        self._cache[key] = found  # as the last to be dropped
        return found

    def _resolve(self, key: bytes, entry: Entry) -> StoredRow:
        topic, ts_ms = self._spec.topic, entry.ts_ms
        if entry.deleted or entry.timestamp < self.meta.truncated_ms:
            return StoredRow(None, topic, entry.partition, entry.offset, ts_ms, deleted=True)
        found = self._pick(entry.records[0], key)
        if isinstance(found, Fault):
            self.counts[f"fault:{found.reason}"] += 1
            return StoredRow(None, topic, entry.partition, entry.offset, ts_ms, fault=found)
        row, missing = found.row, set(found.unavailable)
        fill: dict[str, Any] = {}
        for older in entry.records[1:]:
            change = self._pick(older, key)
            if isinstance(change, Change):
                sent = missing - change.unavailable
                fill |= {name: getattr(change.row, name) for name in sent if name in type(row).model_fields}
                missing -= sent
        if fill:
            row = row.model_copy(update=fill)
        return StoredRow(row, topic, entry.partition, entry.offset, ts_ms, unavailable=frozenset(missing))

    def _pick(self, record: Raw, key: bytes) -> Change[BaseModel] | Fault:
        """The change of this key in a stored record, decoded by the row model of today."""
        result = self._decode(record)
        if isinstance(result, Fault):
            return result
        fault = Fault("join", "stored-row", "the stored record does not hold this row any more")
        if isinstance(result, Decoded):
            for value in result.values:
                if isinstance(value, Fault):
                    fault = value
                elif isinstance(value, Change) and value.after is not None and row_key(self._spec.key, value.key) == key:
                    return value
        return fault

    def _entry(self, key: bytes, *, records: bool = False) -> Entry | None:
        pending = self._pending.get(key)
        if pending is not None:
            return pending
        data = self._store.get(key)
        return unpack(data, self._spec.topic, records=records) if data is not None else None

    def _change(self, record: RawRecord, change: Change[Any]) -> None:
        try:
            key = row_key(self._spec.key, change.key)
        except DataFault as bad:
            self._fault(record, bad.fault)
            return
        if key is None:
            self._fault(record, Fault("join", "join-key", "the primary key of a row is null"))
            return
        deleted = change.op == "d" or change.after is None
        stored = self._entry(key)
        if stored is not None and stored.generation == self.meta.generation:
            which = precedence(stored.source, change.source)
            if which is Precedence.REPLAYED:
                self.counts["replayed"] += 1
                if deleted and not stored.deleted:
                    self._mark(key, ignored_delete=True)
                return
            if which is Precedence.WENT_BACK:
                self.counts["went-back"] += 1
        self.counts["deletes" if deleted else "rows"] += 1
        records: tuple[Raw, ...] = ()
        if not deleted:
            records = (keep(record), *self._senders(key, change.unavailable))
        self._pending[key] = Entry(
            self.meta.generation, record.partition, record.offset, record.timestamp, change.source, deleted, False, records
        )

    def _senders(self, key: bytes, unavailable: frozenset[str]) -> list[Raw]:
        """The fewest older records of this row that sent what the newest one left out."""
        if not unavailable:
            return []
        stored = self._entry(key, records=True)
        if stored is None or stored.deleted or stored.generation != self.meta.generation:
            return []
        missing, found = set(unavailable), []
        for raw in stored.records:
            change = self._pick(raw, key)
            if isinstance(change, Change) and missing - change.unavailable:
                found.append(raw)
                missing &= change.unavailable
        return found

    def _mark(self, key: bytes, *, ignored_delete: bool) -> None:
        entry = self._entry(key, records=True)
        if entry is not None:
            self._pending[key] = entry.with_ignored_delete(ignored_delete)

    def _control(self, record: RawRecord, control: Control) -> None:
        if control.kind == "truncate":
            # a row's own record time is compared, so that rows of partitions not read yet are covered as well
            self.meta.truncated_ms = max(self.meta.truncated_ms, record.timestamp)
            self._cache.clear()
            self.counts["truncates"] += 1
        elif control.kind == "tombstone" and control.key:
            try:
                key = row_key(self._spec.key, control.key)
            except DataFault as bad:
                self._fault(record, bad.fault)
                return
            if key is not None:
                self._tombstone(record, key)

    def _tombstone(self, record: RawRecord, key: bytes) -> None:
        """The end of a key's history in the log. It says nothing of its source, so the delete before it speaks for it."""
        stored = self._entry(key)
        if stored is None:
            return
        if stored.ignored_delete:
            self._mark(key, ignored_delete=False)
        elif not stored.deleted or stored.generation != self.meta.generation:
            self.counts["deletes"] += 1
            self._pending[key] = Entry(
                self.meta.generation, record.partition, record.offset, record.timestamp, stored.source, deleted=True
            )

    def _fault(self, record: RawRecord, fault: Fault) -> None:
        reason = f"fault:{fault.reason}"
        if not self.counts[reason]:
            log.warning("reading reference %s [%d] offset %d: %s", record.topic, record.partition, record.offset, fault)
        self.counts[reason] += 1
        self.meta.faults += 1
