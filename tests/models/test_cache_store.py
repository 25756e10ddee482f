"""The file beneath the cache: bounded, shared, private; and nothing that befalls it is anybody's fault but its own."""

from __future__ import annotations

import asyncio
import logging
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from models.cache.store import LEAST_BYTES, REST_SECONDS, Scope, SqliteStore
from schemas.errors import ConfigError, HeadraceError

SCOPE = Scope("bank", "credit-risk", "m1")
DAY = 86_400.0


class Clock:
    """Wall time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    path: Path, *, most_bytes: int = 10_000_000, clock: Callable[[], float] | None = None
) -> AsyncIterator[SqliteStore]:
    """A store that is closed at the end."""
    store = SqliteStore(path, most_bytes=most_bytes, most_age=DAY, clock=clock or Clock())
    store.hold()
    yield store
    await store.close()


def key(number: int) -> bytes:
    """A key as long as real ones."""
    return number.to_bytes(32, "big")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a fault of the file."""
    monkeypatch.setattr("models.cache.store._PATIENCE", 30.0)


def modes(folder: Path) -> dict[str, int]:
    """Who may read which file."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def content(folder: Path) -> bytes:
    """All bytes in it."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def put(store: SqliteStore, *numbers: int, body: bytes = b"{}", scope: Scope = SCOPE) -> int:
    """Keep a body under each of those keys."""
    return await store.put(scope, {key(number): body for number in numbers})


async def there(store: SqliteStore, *numbers: int) -> list[int]:
    """Which of those keys are found."""
    found = await store.get([key(number) for number in numbers])
    return [number for number in numbers if key(number) in found]


async def test_what_was_put_is_found_by_a_later_process_and_a_newer_body_replaces_it(tmp_path: Path) -> None:
    """A restart keeps the cache."""
    clock = Clock()
    async with opened(tmp_path / "c" / "cache.sqlite", clock=clock) as store:
        assert await put(store, 1, 2, body=b"old") == 2
        await put(store, 2, body=b"new")
    async with opened(tmp_path / "c" / "cache.sqlite", clock=clock) as store:
        assert await store.get([key(1), key(2), key(3)]) == {key(1): b"old", key(2): b"new"}


async def test_what_is_too_old_is_not_found_and_goes(tmp_path: Path) -> None:
    """At its age an entry is gone for readers at once, for the disk with the next write; so is one from a clock gone wrong."""
    clock = Clock()
    async with opened(tmp_path / "cache.sqlite", clock=clock) as store:
        await put(store, 1)
        clock.now += DAY - 1
        await put(store, 2)
        assert await there(store, 1, 2) == [1, 2]
        clock.now += 1
        assert await there(store, 1, 2) == [2]
        await put(store, 3)
        assert store.stats.evicted == 1
        clock.now -= 30 * DAY
        assert await there(store, 2, 3) == []
        await put(store, 4)
        assert (await there(store, 4), store.stats.evicted) == ([4], 3)


async def test_what_was_too_old_is_overwritten(tmp_path: Path) -> None:
    """No byte of an answer that has expired is left in the file, once its log has been taken over."""
    clock, path = Clock(), tmp_path / "cache.sqlite"
    async with opened(path, clock=clock) as store:
        await put(store, *range(40), body=b"CONFIDENTIAL" * 40)
    assert b"CONFIDENTIAL" in content(tmp_path)
    clock.now += DAY + 1
    async with opened(path, clock=clock) as store:
        await put(store, 40)
        assert store.stats.evicted == 40
    assert b"CONFIDENTIAL" not in content(tmp_path)


async def test_the_size_is_bounded_and_what_was_stored_first_goes_first(tmp_path: Path) -> None:
    """Ten times as much as fits: the file stays near its limit, and holds the latest."""
    path, limit = tmp_path / "cache.sqlite", 256 * 1024
    clock = Clock()
    async with opened(path, most_bytes=limit, clock=clock) as store:
        for start in range(0, 2600, 20):
            clock.now += 1
            await put(store, *range(start, start + 20), body=b"x" * 1000)
        held = await there(store, *range(2600))
        assert held == list(range(2600 - len(held), 2600))
        assert len(held) > 100
        assert store.stats.evicted == 2600 - len(held)
        assert store.stats.errors == 0
    assert path.stat().st_size < limit + 64 * 1024


async def test_an_entry_that_would_push_out_all_others_is_not_kept(tmp_path: Path) -> None:
    """One answer is not worth a cache."""
    async with opened(tmp_path / "cache.sqlite", most_bytes=LEAST_BYTES) as store:
        assert await put(store, 1, body=b"x" * LEAST_BYTES) == 0
        assert await put(store, 2) == 1


async def test_only_its_owner_may_read_the_file_and_its_log(tmp_path: Path) -> None:
    """Also the files that SQLite makes beside it."""
    path = tmp_path / "cache.sqlite"
    async with opened(path) as store:
        await put(store, 1)
        assert await there(store, 1) == [1]
        found = modes(tmp_path)
    assert found == {"cache.sqlite": 0o600, "cache.sqlite-wal": 0o600, "cache.sqlite-shm": 0o600}


async def test_a_tenant_or_one_agent_of_it_is_erased_without_a_trace(tmp_path: Path) -> None:
    """Others' entries stay, and no byte of what was erased is left on the disk."""
    others = (Scope("bank", "product-quality", "m2"), Scope("shop", "credit-risk", "m1"))
    async with opened(tmp_path / "cache.sqlite") as store:
        await put(store, 1, 2, body=b"CONFIDENTIAL-1")
        await put(store, 3, body=b"CONFIDENTIAL-2", scope=others[0])
        await put(store, 4, scope=others[1])
        assert await store.clear("bank", "credit-risk") == 2
        assert await there(store, 1, 2, 3, 4) == [3, 4]
        written = content(tmp_path)
        assert b"CONFIDENTIAL-1" not in written
        assert b"CONFIDENTIAL-2" in written
        assert await store.clear("bank") == 1
        assert await there(store, 3, 4) == [4]


async def test_two_stores_share_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one worker was answered, another one on the machine finds; both write at a time."""
    monkeypatch.setattr("models.cache.store._LOCK_SECONDS", 10.0)
    path, clock = tmp_path / "cache.sqlite", Clock()
    async with opened(path, clock=clock) as one, opened(path, clock=clock) as other:
        kept = await asyncio.gather(
            *(put(store, *range(start, start + 10)) for start in range(0, 200, 20) for store in (one,)),
            *(put(store, *range(start, start + 10)) for start in range(10, 200, 20) for store in (other,)),
        )
        assert sum(kept) == 200
        assert len(await there(one, *range(200))) == len(await there(other, *range(200))) == 200
        assert (one.stats.errors, other.stats.errors) == (0, 0)


_WORKER = """
import asyncio, sys, pathlib
from models.cache.store import Scope, SqliteStore

async def main() -> None:
    store = SqliteStore(pathlib.Path(sys.argv[1]), most_bytes=10_000_000, most_age=86400.0, clock=lambda: 1_700_000_000.0)
    store.hold()
    start, kept = int(sys.argv[2]), 0
    for number in range(start, start + 100):
        kept += await store.put(Scope("bank", "credit-risk", "m1"), {number.to_bytes(32, "big"): b"{}"})
    await store.close()
    print(kept, store.stats.errors)

asyncio.run(main())
"""


async def test_several_processes_share_one_file(tmp_path: Path) -> None:
    """Three workers that begin at once, none having made the file: what each says it kept is there, nothing is damaged."""
    path = tmp_path / "cache.sqlite"
    argv = [sys.executable, "-c", _WORKER, str(path)]
    async with asyncio.timeout(60):
        workers = [await asyncio.create_subprocess_exec(*argv, str(start), stdout=subprocess.PIPE) for start in (0, 100, 200)]
        said = [(await worker.communicate())[0].split() for worker in workers]
    kept = sum(int(count) for count, _ in said)
    assert kept + sum(int(errors) for _, errors in said) == 300
    assert kept > 100  # a lock that is waited for in vain costs an entry, not a record
    async with opened(path) as store:
        assert len(await there(store, *range(300))) == kept
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# ---- what befalls a file ---------------------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("what", ["garbage", "a folder", "below a file", "cut off", "overwritten"])
async def test_a_file_that_is_none_is_no_cache_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Lookups find nothing, writes keep nothing, nothing raises, and the log says so once."""
    path = tmp_path / "cache.sqlite"
    if what in ("cut off", "overwritten"):
        async with opened(path) as store:
            for number in range(200):
                await put(store, number, body=b"x" * 500)
        whole = path.read_bytes()
        half = len(whole) // 2
        path.write_bytes(whole[:half] if what == "cut off" else whole[:4096] + b"\xff" * (len(whole) - 4096))
    elif what == "garbage":
        path.write_bytes(b"no database" * 1000)
    elif what == "a folder":
        path.mkdir()
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "cache.sqlite"
    async with opened(path) as store:
        for _ in range(3):
            await there(store, *range(200))
            await put(store, *range(300, 320), body=b"y" * 500)
        assert store.stats.errors > 0
        with pytest.raises(HeadraceError, match="clearing the cache"):
            await store.clear("bank")
    assert len(warnings(caplog)) == 1
    assert "cache.sqlite" in warnings(caplog)[0]


async def test_a_file_that_may_only_be_read_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing new is kept, what is there is found; a file that only a later SQLite may write is such a one, even for root."""
    path = tmp_path / "cache.sqlite"
    async with opened(path) as store:
        await put(store, 1)
    marked = bytearray(path.read_bytes())
    marked[18] = 3  # the version needed for writing
    path.write_bytes(marked)
    async with opened(path) as store:
        assert await put(store, 2) == 0
        assert await there(store, 1, 2) == [1]
        assert await put(store, 3) == 0
    assert len(warnings(caplog)) == 1


async def test_a_full_disk_keeps_nothing_and_is_tried_again_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is there is still found; writes rest for a minute, then go on where there is space again."""
    path, clock = tmp_path / "cache.sqlite", Clock()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(path, clock=clock) as store:
        await put(store, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, before[1]))
        try:
            kept = [await put(store, number, body=b"x" * 100_000) for number in range(10, 20)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert kept[-1] == 0
        assert store.stats.errors == 1, "the others did not try"
        assert await there(store, 1) == [1]
        assert await put(store, 2) == 0
        clock.now += REST_SECONDS
        assert await put(store, 2) == 1
        assert await there(store, 1, 2) == [1, 2]
    assert len(warnings(caplog)) == 1


async def test_a_lock_that_another_holds_costs_an_entry_and_no_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lookups do not wait for a writer; a write that can not get the lock in time is given up, the next one is tried."""
    path = tmp_path / "cache.sqlite"
    async with opened(path) as store:
        await put(store, 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            assert await there(store, 1) == [1]
            assert await put(store, 2) == 0
            db.execute("ROLLBACK")
        assert await put(store, 2) == 1
    assert len(warnings(caplog)) == 1


async def test_a_file_that_another_worker_is_making_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Workers start together: that is no fault, and is not logged."""
    path = tmp_path / "cache.sqlite"
    async with opened(path) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            kept = asyncio.ensure_future(put(store, 1))
            await asyncio.sleep(0.15)  # longer than SQLite itself waits
            db.execute("ROLLBACK")
        assert await kept == 1
        assert store.stats.errors == 0
    assert not warnings(caplog)


async def test_a_disk_that_hangs_holds_up_neither_the_loop_nor_lookups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup is given up after a while, and until the file has rested nobody waits again."""
    monkeypatch.setattr("models.cache.store._PATIENCE", 0.05)
    released = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with opened(tmp_path / "cache.sqlite") as store:
        await put(store, 1)

        def hang(_db: Any) -> None:
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result()

        hanging = asyncio.ensure_future(store._reading.run(hang, None, None))
        await asyncio.sleep(0)
        assert await there(store, 1) == []
        assert store.stats.errors == 1
        assert [await there(store, 1) for _ in range(100)] == [[]] * 100
        assert store.stats.errors == 1
        released.set()
        await hanging


async def test_after_closing_nothing_is_found_and_nothing_raises(tmp_path: Path) -> None:
    """The last who holds it closes it."""
    store = SqliteStore(tmp_path / "cache.sqlite", most_bytes=LEAST_BYTES, most_age=DAY, clock=Clock())
    store.hold()
    store.hold()
    await store.close()
    assert await put(store, 1) == 1
    await store.close()
    await store.close()
    assert await put(store, 2) == 0
    assert await there(store, 1) == []


@pytest.mark.parametrize(("most_bytes", "most_age", "said"), [(1000, DAY, "1000 bytes"), (LEAST_BYTES, 0.0, "age is 0 s")])
def test_bounds_that_can_not_work_are_named(tmp_path: Path, most_bytes: int, most_age: float, said: str) -> None:
    """A size that does not hold an empty file, an age that nothing has."""
    with pytest.raises(ConfigError, match=said):
        SqliteStore(tmp_path / "cache.sqlite", most_bytes=most_bytes, most_age=most_age)
