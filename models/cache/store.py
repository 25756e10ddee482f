"""Where cached answers are kept: one SQLite file, shared by all workers of a machine; whatever befalls it, there is no cache.

Bounded by age, and by the pages in use; what was stored first goes first. Reading writes nothing, so lookups wait for nobody
(write-ahead log). Lookups and writes have a thread and a connection each, and the event loop only waits, for so long.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from schemas.errors import ConfigError, HeadraceError

log = logging.getLogger(__name__)
T = TypeVar("T")

LEAST_BYTES = 64 * 1024
REST_SECONDS = 60.0
"""After a fault of the file it is left alone for so long."""
_PATIENCE = 1.0
_LOCK_SECONDS = 0.1
_OPENING_TRIES = 10
_MOST_PENDING = 256
_AHEAD_SECONDS = 60.0
_EVICTED_AT_ONCE, _ROUNDS = 64, 20
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers_1 (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, agent TEXT NOT NULL, stored REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_1_stored ON answers_1 (stored);
"""
# A replaced row gets a new id: rows lie in the file in the order in which they will be evicted, which frees whole pages.
_PUT = "INSERT OR REPLACE INTO answers_1 (key, tenant, agent, stored, body) VALUES (?, ?, ?, ?, ?)"
_EVICT_OLD = "DELETE FROM answers_1 WHERE id IN (SELECT id FROM answers_1 WHERE stored <= ? OR stored > ? LIMIT ?)"
_EVICT_FIRST = "DELETE FROM answers_1 WHERE id IN (SELECT id FROM answers_1 ORDER BY stored, id LIMIT ?)"
_CLEAR = "DELETE FROM answers_1 WHERE tenant = ? AND (? IS NULL OR agent = ?)"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose answers they are. `manifest` is the hash of everything that shapes them besides the question and the model.

    `endpoint` is where that model is: one name may be two models at two places.
    """

    tenant: str
    agent: str
    manifest: str
    endpoint: str = ""


@dataclass(slots=True)
class StoreStats:
    """Entries dropped for age or size by this process, and lookups and writes that failed or took too long."""

    evicted: int = 0
    errors: int = 0


class AnswerStore(Protocol):
    """Keeps bodies by key. `get` and `put` never raise for what the storage does: nothing is found, nothing is kept."""

    @property
    def stats(self) -> StoreStats:
        """Counted since the start."""
        ...

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The bodies of those keys that are there and not too old."""
        ...

    async def put(self, scope: Scope, entries: Mapping[bytes, bytes]) -> int:
        """Keep bodies by key; how many were kept."""
        ...

    def hold(self) -> None:
        """One more uses it."""
        ...

    async def close(self) -> None:
        """One less uses it; the last closes it."""
        ...


class SqliteStore:
    """An AnswerStore in the file `path`, made with mode 0600, its folder too where it is not there.

    `most_bytes` bounds the pages in use, `most_age` the age in seconds. `clock` is wall time in seconds: other processes and
    later ones read what it stamps. Raises ConfigError for bounds that can not work, and for nothing that the file is or does.
    """

    def __init__(self, path: Path, *, most_bytes: int, most_age: float, clock: Callable[[], float] = time.time) -> None:
        if most_bytes < LEAST_BYTES:
            raise ConfigError(f"opening the cache {path}: its size is {most_bytes} bytes, it has to be {LEAST_BYTES} at least")
        if not most_age > 0:
            raise ConfigError(f"opening the cache {path}: its age is {most_age:g} s, it has to be above 0")
        self.stats = StoreStats()
        self._path = path
        self._most_bytes, self._most_age = most_bytes, most_age
        self._clock = clock
        self._warned = False
        self._holders = 0
        self._reading = _Desk(f"cache-read-{path.name}", self._connect, self._fault, clock)
        self._writing = _Desk(f"cache-write-{path.name}", self._connect, self._fault, clock)

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See AnswerStore."""
        now = self._clock()
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, body FROM answers_1 WHERE stored > ? AND stored <= ? AND key IN ({marks})"  # noqa: S608  # marks only

        def read(db: sqlite3.Connection) -> dict[bytes, bytes]:
            rows = db.execute(query, (now - self._most_age, now + _AHEAD_SECONDS, *keys)).fetchall()
            return {key: body for key, body in rows if isinstance(body, bytes)}

        return await self._reading.run(read, {}, _PATIENCE)

    async def put(self, scope: Scope, entries: Mapping[bytes, bytes]) -> int:
        """See AnswerStore. One transaction; what is too old or too much goes in the same."""
        now = self._clock()
        rows = [
            (key, scope.tenant, scope.agent, now, body) for key, body in entries.items() if len(body) <= self._most_bytes // 16
        ]

        def write(db: sqlite3.Connection) -> tuple[int, int]:
            with _transaction(db):
                db.executemany(_PUT, rows)
                return len(rows), self._evict(db, now)

        stored, evicted = await self._writing.run(write, (0, 0), None) if rows else (0, 0)
        self.stats.evicted += evicted
        return stored

    async def clear(self, tenant: str, agent: str | None = None) -> int:
        """Erase all of a tenant, or of one agent of it; how many entries. Raises HeadraceError where that was not possible.

        What was erased is overwritten, in the file and in its log. A worker that is running may keep answers to what it asked
        before.
        """

        def erase(db: sqlite3.Connection) -> int:
            with _transaction(db):
                erased = db.execute(_CLEAR, (tenant, agent, agent)).rowcount
            busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("the log is in use by another process, try again")
            return erased

        erased = await self._writing.run(erase, None, None, rested=True)
        if erased is None:
            raise HeadraceError(f"clearing the cache {self._path}: {self._writing.error or 'it is closed'}")
        return erased

    def hold(self) -> None:
        """See AnswerStore."""
        self._holders += 1

    async def close(self) -> None:
        """See AnswerStore."""
        self._holders -= 1
        if self._holders <= 0:
            await self._reading.close()
            await self._writing.close()

    def _connect(self) -> sqlite3.Connection:
        """In a desk's thread. The file is made before SQLite could make it readable for others; its log takes over the mode."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        for _ in range(_OPENING_TRIES):
            try:
                return self._prepared()
            except sqlite3.OperationalError as error:
                # Several open a new file at once, and SQLite does not wait for the lock in all of these steps.
                if not _busy(error):
                    raise
                time.sleep(_LOCK_SECONDS / 4)
        return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA journal_size_limit = 4194304")
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _evict(self, db: sqlite3.Connection, now: float) -> int:
        """Too old first, then what was stored first; a bounded piece of work, since others wait for the lock."""
        limit = _EVICTED_AT_ONCE * _ROUNDS
        evicted = db.execute(_EVICT_OLD, (now - self._most_age, now + _AHEAD_SECONDS, limit)).rowcount
        for _ in range(_ROUNDS):
            if _used(db) <= self._most_bytes:
                break
            dropped = db.execute(_EVICT_FIRST, (_EVICTED_AT_ONCE,)).rowcount
            evicted += dropped
            if not dropped:
                break
        return evicted

    def _fault(self, error: Exception) -> None:
        self.stats.errors += 1
        if not self._warned:
            self._warned = True
            log.warning(
                "using the cache %s: %s; models are asked instead. Further faults are counted, not logged. "
                "A damaged file may be deleted while no worker runs", self._path, _said(error),
            )  # fmt: skip


class _Desk:
    """One thread with one connection. A job that fails gives what was said to be given `otherwise`."""

    def __init__(
        self, name: str, connect: Callable[[], sqlite3.Connection], fault: Callable[[Exception], None], clock: Callable[[], float]
    ) -> None:
        self.error = ""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connect, self._fault, self._clock = connect, fault, clock
        self._db: sqlite3.Connection | None = None
        self._resting_since: float | None = None
        self._pending = 0
        self._lock = threading.Lock()

    async def run(
        self, job: Callable[[sqlite3.Connection], T], otherwise: T, patience: float | None, *, rested: bool = False
    ) -> T:
        """What `job` gives, awaited for `patience` seconds. `rested`: try even if the file failed a moment ago."""
        if not rested and self._rests():
            return otherwise
        if self._pending >= _MOST_PENDING:
            self._fault(TimeoutError("the disk does not keep up"))
            return otherwise
        try:
            future = self._pool.submit(self._do, job, otherwise, rested)
        except RuntimeError:
            return otherwise  # closed
        with self._lock:
            self._pending += 1
        future.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(patience):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._resting_since = self._clock()
            self._fault(TimeoutError(f"no reply from the disk in {patience} s"))
            return otherwise

    async def close(self) -> None:
        """Close the connection after what is under way; a disk that hangs is not waited for."""
        try:
            future = self._pool.submit(self._disconnect)
        except RuntimeError:
            return
        self._pool.shutdown(wait=False)
        try:
            async with asyncio.timeout(1.0):
                await asyncio.wrap_future(future)
        except TimeoutError:
            pass

    def _do(self, job: Callable[[sqlite3.Connection], T], otherwise: T, rested: bool) -> T:
        """In the thread."""
        if not rested and self._rests():
            return otherwise
        try:
            if self._db is None:
                self._db = self._connect()
            return job(self._db)
        except Exception as error:  # noqa: BLE001  # a damaged file raises more than sqlite3.Error, and no record may fail for it
            self.error = _said(error)
            if not _busy(error):
                self._resting_since = self._clock()
                self._disconnect()
            self._fault(error)
            return otherwise

    def _rests(self) -> bool:
        since = self._resting_since
        return since is not None and 0 <= self._clock() - since < REST_SECONDS  # a clock that was set back ends the rest

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                pass

    def _ended(self, future: Future[T]) -> None:
        with self._lock:
            self._pending -= 1


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Holds the write lock from the start: a transaction that began by reading could not take it later without failing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _used(db: sqlite3.Connection) -> int:
    """Bytes of the pages in use. Freed pages stay in the file and are used again, so the file does not outgrow its limit."""
    pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def _busy(error: Exception) -> bool:
    """Another holds the lock: that passes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
