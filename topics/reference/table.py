"""ReferenceTable: a whole topic of row changes, followed without a group, as a local keyed table.

Every worker reads every partition, read committed, and keeps the rows with their positions in a store of its own. At start
the store goes on from where it was left, unless something says that what it holds can not be trusted:

- it is of another topic, partition count, key or encoding, or a row model that may read what the last one could not;
- a position lies outside the log, or the record at it is another one than was read (the topic was made anew);
- it has not followed the topic for more than half of `delete.retention.ms`, so that deletes may have come and gone.

Then it is rebuilt from the start of the log. While a running table is rebuilt it goes on answering from what it holds; what
the log no longer names is forgotten when the end is reached.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, RecordTooLargeError

from schemas.errors import BrokerError, TopicError
from schemas.receipt import Position
from topics.decode import decoder
from topics.ends import end_offsets
from topics.reference.contents import Contents, Decode
from topics.reference.described import DAY_MS, describe
from topics.reference.rows import StoredRow
from topics.reference.store import Meta, Store
from topics.reference.trust import checksum, distrust, fingerprint, model_hash
from topics.spec import TopicSpec
from topics.tolerant.consumer import TolerantConsumer

log = logging.getLogger(__name__)

_POLL_MS = 200
_MOST_RECORDS = 500
_YIELD_EVERY = 64
_SAVE_SECONDS = 5.0
_TRY_AGAIN_SECONDS, _MOST_SECONDS = 1.0, 30.0
_GAP_MS = 30_000
"""What a running table forgives, however short the retention: fetches and the cleaner's own rounds take their time."""
_SHORT_MS = 3_000
_SETTLED_MS = 1000
"""An answer of the broker that is this much later than a question was also given later."""


class ReferenceTable:
    """See the module. `start`, then `ready`; `get` and `wait_for` as in Table; `stop` when done."""

    def __init__(
        self,
        spec: TopicSpec[Any],
        connection: Mapping[str, Any],
        folder: Path,
        *,
        decode: Decode | None = None,
        cache_rows: int = 20_000,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`connection` holds what every aiokafka client of this cluster is given (bootstrap_servers, security).

        The store is made in `folder`, which is this topic's alone. `decode` is `topics.decode.decoder(spec)` unless given.
        `cache_rows` decoded rows are kept in memory. `wall_ms` is the clock that a store's age is told by.
        """
        self.spec = spec
        self._decode: Decode = decode if decode is not None else decoder(spec)
        self._connection = dict(connection)
        self._folder = folder
        self._cache_rows = cache_rows
        self._wall_ms = wall_ms
        self._retention_ms = DAY_MS
        self._consumer: TolerantConsumer | None = None
        self._store: Store | None = None
        self._contents: Contents | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ends: dict[int, int] = {}
        self._required: dict[int, int] = {}
        self._verify: dict[int, tuple[int, int]] = {}
        self._caught_up: set[int] = set()
        self._short_since: dict[int, int] = {}
        self._started_ms = 0
        self._required_ms = 0
        self._sought_ms = 0
        self._saved_at = 0.0

    # --- lookups

    def get(self, key: Any) -> StoredRow | None:
        """The row of this key as read so far. Raises DataFault for a key that is none."""
        return self._rows.get(key)

    async def wait_for(self, key: Any, timeout: float) -> StoredRow | None:
        """`get`, once there is a row that is not deleted, or after `timeout` seconds."""
        return await self._rows.wait_for(key, timeout)

    def positions(self) -> list[Position]:
        """The next offset to read of each partition: everything before it is in the table."""
        read = self._rows.meta.positions
        return [Position(name=self.spec.name, topic=self.spec.topic, partition=p, offset=read[p]) for p in sorted(read)]

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened since the start: rows, deletes, replayed, went-back, truncates, rebuilds, ahead, fault:REASON.

        Nothing before the start. From any thread; who walks over it in another one copies it first.
        """
        return self._contents.counts if self._contents is not None else {}

    @property
    def _rows(self) -> Contents:
        if self._contents is None:
            raise RuntimeError(f"reference table {self.spec.name} is used before it was started")
        return self._contents

    # --- life

    async def start(self) -> None:
        """Open the store and begin to read. Raises TopicError for a topic that is not there, BrokerError without a broker."""
        self._started_ms = self._wall_ms()
        consumer = TolerantConsumer(
            **self._connection,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            metadata_max_age_ms=30_000,
        )
        self._consumer = consumer
        try:
            await consumer.start()
            partitions, self._retention_ms = await describe(self.spec.topic, self._connection)
            self._store = Store(self._folder)
            await self._open(self._store, partitions)
        except KafkaError as error:
            await self.stop()
            raise BrokerError(f"opening reference table {self.spec.topic}: {error!r}") from error
        except BaseException:
            await self.stop()
            raise
        self._task = asyncio.create_task(self._follow(), name=f"reference {self.spec.topic}")

    async def ready(self) -> None:
        """Return once the end seen at start, and all that `require` named, has been read. Raises what ended the reading."""
        await self._unless_failed(asyncio.ensure_future(self._ready.wait()))

    async def run(self) -> None:
        """Return when the table is stopped; raise what ended its reading before that."""
        task = self._task
        if task is not None:
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    def require(self, positions: Iterable[Position]) -> None:
        """Not ready before these have been read; other tables' positions among them are passed over.

        A position beyond the end of the log can not be read: it is counted as `ahead`, said, and the log's end is enough.
        """
        for position in positions:
            if position.topic == self.spec.topic and position.offset > self._required.get(position.partition, 0):
                self._required[position.partition] = position.offset
                self._required_ms = time.time_ns() // 1_000_000
        if not self._reached():
            self._ready.clear()

    async def stop(self) -> None:
        """Stop reading, write how far it came, free the store. Safe to call twice, and after a start that failed."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                log.error("reading reference %s had ended: %r", self.spec.topic, task.exception())
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        if self._store is not None:
            if self._contents is not None:
                self._contents.flush()
            self._store.close()

    async def _unless_failed(self, wanted: asyncio.Future[Any]) -> None:
        task = self._task
        if task is None:
            wanted.cancel()
            raise RuntimeError(f"reference table {self.spec.name} is not running")
        try:
            await asyncio.wait([wanted, task], return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                if not task.cancelled():
                    task.result()
                raise RuntimeError(f"reference table {self.spec.name} was stopped")
        finally:
            wanted.cancel()

    # --- what the store is worth

    async def _open(self, store: Store, tps: list[TopicPartition]) -> None:
        assert self._consumer is not None
        ends = await end_offsets(self._connection, tps)
        starts = await self._consumer.beginning_offsets(tps)
        self._ends = {tp.partition: end for tp, end in ends.items()}
        log_starts = {tp.partition: start for tp, start in starts.items()}
        identity = fingerprint(self.spec, len(tps))
        meta = store.meta
        why = None
        if meta is not None:
            age = self._started_ms - min(meta.fresh.values(), default=self._started_ms)
            why = distrust(meta, identity, model_hash(self.spec), log_starts, self._ends, age, self._retention_ms / 2)
        if meta is None:
            meta = Meta(identity)
        self._contents = Contents(self.spec, self._decode, store, meta, cache_rows=self._cache_rows)
        self._consumer.assign(tps)
        if why is not None:
            self._rebuild(why, identity, log_starts)
        else:
            if meta.faults == 0:
                meta.model = model_hash(self.spec)
            for partition, start in log_starts.items():
                meta.positions.setdefault(partition, start)
                meta.fresh.setdefault(partition, self._started_ms)
            self._seek(log_starts)
        await self._progress()

    def _rebuild(self, why: str, identity: str, log_starts: Mapping[int, int]) -> None:
        """Read everything again, under a new generation; the old rows answer until the end is reached."""
        contents = self._rows
        log.warning("reference table %s is read anew from the start of its log: %s", self.spec.topic, why)
        contents.counts["rebuilds"] += 1
        now = self._wall_ms()
        contents.meta = Meta(
            identity,
            model=model_hash(self.spec),
            generation=contents.meta.generation + 1,
            positions=dict(log_starts),
            fresh=dict.fromkeys(log_starts, now),
        )
        contents.flush()
        self._caught_up.clear()
        self._seek(log_starts)

    def _seek(self, log_starts: Mapping[int, int]) -> None:
        """To the last record read, to see that it is still the same one, or else to the position."""
        assert self._consumer is not None
        meta = self._rows.meta
        self._verify = {}
        self._short_since.clear()
        self._sought_ms = time.time_ns() // 1_000_000  # compared with the client's own times of its polls
        for partition, position in meta.positions.items():
            anchor = meta.anchors.get(partition)
            if anchor is not None and anchor[0] >= log_starts[partition]:
                self._verify[partition] = anchor
                position = anchor[0]
            self._consumer.seek(TopicPartition(self.spec.topic, partition), position)

    # --- following

    async def _follow(self) -> None:
        assert self._consumer is not None
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
                await self._check_log()
                await self._take(batches)
                await self._progress()
            except OffsetOutOfRangeError:
                await self._start_over("its position fell out of the log")
            except _StartOver as reason:
                await self._start_over(str(reason))
            except RecordTooLargeError as error:
                self._rows.counts["fault:too-large"] += 1
                log.warning("reading reference %s: %s", self.spec.topic, error)
            except KafkaError as error:
                log.warning("reading reference %s: %r; trying again", self.spec.topic, error)
                await asyncio.sleep(_TRY_AGAIN_SECONDS)

    async def _start_over(self, why: str) -> None:
        assert self._consumer is not None
        delay = _TRY_AGAIN_SECONDS
        while True:
            try:
                tps, self._retention_ms = await describe(self.spec.topic, self._connection)
                starts = await self._consumer.beginning_offsets(tps)
                ends = await end_offsets(self._connection, tps)
                break
            except (KafkaError, TopicError) as error:  # a topic that is gone may come back; until then the store answers
                log.warning("reading reference %s: %r; trying again", self.spec.topic, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _MOST_SECONDS)
        self._ends = {tp.partition: end for tp, end in ends.items()}
        self._consumer.assign(tps)
        self._rebuild(why, fingerprint(self.spec, len(tps)), {tp.partition: start for tp, start in starts.items()})

    async def _check_log(self) -> None:
        """Before anything of a fetch is used: is what is between it and the last one still all there?"""
        assert self._consumer is not None
        fresh = self._rows.meta.fresh
        numbers = self._consumer.partitions_for_topic(self.spec.topic)
        if numbers and len(numbers) != len(fresh):
            raise _StartOver("the number of partitions has changed")
        for partition, position in self._rows.meta.positions.items():
            self._check_end(TopicPartition(self.spec.topic, partition), position)
        for partition in self._caught_up:
            polled = self._consumer.last_poll_timestamp(TopicPartition(self.spec.topic, partition))
            if polled is not None and polled - fresh[partition] > max(self._retention_ms / 2, _GAP_MS):
                raise _StartOver("it has not followed the topic for half of delete.retention.ms")

    def _check_end(self, tp: TopicPartition, position: int) -> None:
        """Some brokers answer a fetch beyond the end of a log with nothing, instead of saying that it is out of range.

        A new leader may lag behind what was already read, so the log must stay short for a while.
        """
        assert self._consumer is not None
        high, polled = self._consumer.highwater(tp), self._consumer.last_poll_timestamp(tp)
        if high is None or polled is None or polled < self._sought_ms or high >= position:
            self._short_since.pop(tp.partition, None)
        elif polled - self._short_since.setdefault(tp.partition, polled) > _SHORT_MS:
            raise _StartOver(f"the log of partition {tp.partition} ends at {high}, before position {position}")

    async def _take(self, batches: Mapping[TopicPartition, list[Any]]) -> None:
        contents = self._rows
        taken = 0
        for tp, records in batches.items():
            anchor = self._verify.pop(tp.partition, None)
            if anchor is not None and records and records[0].offset == anchor[0]:
                if checksum(records[0]) != anchor[1]:
                    raise _StartOver("the log holds another record where the last one was read")
                records = records[1:]
            for record in records:
                contents.take(record)
                taken += 1
                if taken % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            if records:
                # whatever the log forgets from here on was written after this record
                written = min(records[-1].timestamp, self._wall_ms())
                contents.meta.fresh[tp.partition] = max(contents.meta.fresh[tp.partition], written)
        if taken:
            contents.flush()

    async def _progress(self) -> None:
        """Note how far each partition is, end a rebuild, say so when ready, and now and then write it down."""
        assert self._consumer is not None
        contents = self._rows
        meta = contents.meta
        for partition in meta.positions:
            tp = TopicPartition(self.spec.topic, partition)
            position = await self._consumer.position(tp)
            meta.positions[partition] = max(meta.positions[partition], position)
            polled = self._consumer.last_poll_timestamp(tp)
            if polled is None or self._log_end(tp) > meta.positions[partition]:
                continue
            # nothing beyond the position when the broker last answered
            anchor = self._verify.get(partition)
            if anchor is not None and (position > anchor[0] or polled > self._sought_ms + _SETTLED_MS):
                del self._verify[partition]  # compacted away since: nothing to compare
            if partition not in self._verify:
                meta.fresh[partition] = max(meta.fresh[partition], polled)
                self._caught_up.add(partition)
                if self._required.get(partition, 0) > position and polled > self._required_ms + _SETTLED_MS:
                    self._ahead(partition, position)
        if meta.building and all(meta.positions[p] >= end for p, end in self._ends.items()):
            await contents.sweep()
        if not self._ready.is_set() and self._reached():
            self._ready.set()
        if time.monotonic() - self._saved_at > _SAVE_SECONDS:
            self._saved_at = time.monotonic()
            contents.flush()

    def _log_end(self, tp: TopicPartition) -> int:
        """The last stable offset when the broker last answered; a broker without transactions may tell only the log's end."""
        assert self._consumer is not None
        stable, high = self._consumer.last_stable_offset(tp), self._consumer.highwater(tp)
        if stable is not None and stable >= 0:
            return int(stable)
        return int(high) if high is not None else 0

    def _ahead(self, partition: int, position: int) -> None:
        """A receipt names what this log does not have: it was cut back, or is another one."""
        self._rows.counts["ahead"] += 1
        log.error(
            "reference table %s: a receipt has read partition %d up to %d, but the log ends at %d; going on with the log",
            self.spec.topic, partition, self._required.pop(partition), position,
        )  # fmt: skip

    def _reached(self) -> bool:
        if self._contents is None or self._contents.meta.building or self._verify:
            return False
        read = self._contents.meta.positions
        wanted = [*self._ends.items(), *self._required.items()]
        return all(read.get(partition, offset) >= offset for partition, offset in wanted)


class _StartOver(Exception):
    """What was read so far can not be gone on with."""
