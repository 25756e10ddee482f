"""Reference tables: which change stands, how rows are found, and a topic followed on real brokers through surprises."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.change import Change, SourcePosition
from schemas.dead_letter import Fault
from schemas.errors import BrokerError, DataFault, TopicError
from schemas.receipt import Position
from tests.support.kafka import create_topic, produce
from topics.decode import decoder
from topics.decode.result import Control, Decoded, Result
from topics.dev_broker import ApacheKafka, EmbeddedBroker, LocalBroker, free_port
from topics.record import Raw, RawRecord
from topics.reference import MemoryTable, ReferenceTable, StoredRow, row_key
from topics.reference.contents import Contents
from topics.reference.entry import Entry, pack, unpack
from topics.reference.rows import Precedence, precedence
from topics.reference.store import Meta, Store
from topics.spec import TopicSpec


class Customer(BaseModel):
    """A row of the joined table."""

    id: int
    name: str | None = ""
    income: Decimal | None = None


class OlderCustomer(Customer):
    """A later row model."""

    age: int | None = None


ROOT = Path(__file__).resolve().parents[2]
SPEC: TopicSpec[Any] = TopicSpec(name="customers", kind="change", row=Customer, key=("id",))


def decode(record: RawRecord) -> Result[Any]:
    """A plain JSON form of changes, so that these tests do not lean on any envelope."""
    if record.value is None:
        return Control("tombstone", json.loads(record.key or b"{}"))
    try:
        body = json.loads(record.value, parse_float=Decimal)
    except ValueError:
        return Fault("decode", "not-json")
    if body == "truncate":
        return Control("truncate")
    key = json.loads(record.key or b"{}")
    after = Customer(**body["after"]) if body.get("after") else None
    source = SourcePosition(name=body.get("source", "pg"), ts_ms=body.get("ts"), order=tuple(body.get("order", ())))
    change = Change(body.get("op", "u"), key, after, source=source, unavailable=frozenset(body.get("unavailable", ())))
    return Decoded((change,))


def body(number: int, name: str | None = "a", **more: Any) -> tuple[bytes, bytes]:
    """A record (key, value) of one row."""
    key = json.dumps({"id": number}).encode()
    return key, json.dumps({"op": "u", "after": {"id": number, "name": name}} | more).encode()


def gone(number: int, **more: Any) -> tuple[bytes, bytes]:
    """A record that deletes a row."""
    return body(number, op="d", after=None, **more)


def tombstone(number: int) -> tuple[bytes, None]:
    """The record that follows a delete."""
    return json.dumps({"id": number}).encode(), None


# --- keys


@pytest.mark.parametrize("key", [7, (7,), [7], {"id": 7}, {"id": 7, "other": 1}, Decimal("7.00"), 7.0])
def test_all_ways_to_write_a_key_find_the_same_row(key: Any) -> None:
    """What an agent's `on` returns need not have the form that the key has on the wire."""
    assert row_key(("id",), key) == row_key(("id",), {"id": 7})


def test_keys_of_different_types_or_parts_are_different() -> None:
    """No two keys share a form by accident of their text."""
    uuid = UUID(int=5)
    keys: list[Any] = ["7", 7, True, b"7", Decimal("7.5"), "7.5", ("1", "2s1:3"), ("12s1", "3"), (1, 2), (12,), str(uuid)]
    assert len({row_key((), key) for key in keys}) == len(keys)
    assert row_key(("u",), uuid) == row_key(("u",), str(uuid))
    assert row_key(("d",), date(2026, 1, 2)) == row_key(("d",), "2026-01-02")


@given(st.lists(st.text() | st.integers(), min_size=1, max_size=3), st.lists(st.text() | st.integers(), min_size=1, max_size=3))
def test_composite_keys_are_equal_only_when_their_parts_are(one: list[Any], two: list[Any]) -> None:
    """The canonical form can be taken apart in one way only."""
    assert (row_key((), one) == row_key((), two)) == (one == two)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=3))
def test_numbers_are_one_key_however_many_zeros_they_carry(number: Decimal) -> None:
    """A numeric(12,3) column and an int column meet where they are equal, beyond 28 digits as well."""
    assert row_key((), number) == row_key((), Decimal(f"{number:f}000"))
    assert row_key((), number) != row_key((), Decimal(f"{number:f}1"))


@pytest.mark.parametrize("key", [(1, 2), (), {"other": 1}, object(), float("nan"), Decimal("1e9999"), [[1]]])
def test_what_is_no_key_is_a_fault_of_the_record(key: Any) -> None:
    """A wrong key ends as a dead letter, not as an exception of the loop."""
    with pytest.raises(DataFault) as caught:
        row_key(("id",), key)
    assert caught.value.fault.reason == "join-key"


def test_a_null_key_names_no_row() -> None:
    """A nullable foreign key is nothing to look up."""
    assert row_key(("id",), None) is None
    assert row_key(("a", "b"), (1, None)) is None


# --- which change stands

AT = SourcePosition(name="pg", ts_ms=100, order=(5, 1))


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (SourcePosition(name="pg", ts_ms=101, order=(6,)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=100, order=(5, 1)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=99, order=(6,)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=99, order=(5, 0)), Precedence.REPLAYED),
        (SourcePosition(name="pg", ts_ms=101, order=(1,)), Precedence.WENT_BACK),
        (SourcePosition(name="pg", ts_ms=100, order=(1,)), Precedence.WENT_BACK),
        (SourcePosition(name="pg", ts_ms=None, order=(1,)), Precedence.WENT_BACK),
        (SourcePosition(name="other", ts_ms=1, order=(1,)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=1), Precedence.NEWER),
    ],
)
def test_only_what_is_older_by_position_and_by_time_is_a_replay(later: SourcePosition, expected: Precedence) -> None:
    """A failover takes positions back but not time; a replay takes both back."""
    assert precedence(AT, later) is expected


# --- entries

raws = st.builds(
    Raw,
    topic=st.just("t"),
    value=st.none() | st.binary(max_size=20),
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**50),
)
entries = st.builds(
    Entry,
    generation=st.integers(0, 2**32 - 1),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**50),
    source=st.builds(
        SourcePosition,
        connector=st.text(max_size=5),
        name=st.text(max_size=5),
        ts_ms=st.none() | st.integers(-(2**50), 2**50),
        order=st.lists(st.integers(0, 2**100), max_size=3).map(tuple),
    ),
    deleted=st.booleans(),
    ignored_delete=st.booleans(),
    records=st.lists(raws, max_size=2).map(tuple),
)


@given(entries)
def test_an_entry_comes_back_as_it_was_stored(entry: Entry) -> None:
    """Bytes, null and empty, headers, positions of any size: nothing is changed by the store."""
    assert unpack(pack(entry), "t") == entry
    assert unpack(pack(entry), "t", records=False) == replace(entry, records=())


# --- contents


class Log:
    """Feeds records to the contents of a table, one offset after the other, each flushed."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.contents = Contents(SPEC, decode, self.store, Meta("x"), cache_rows=2)
        self.offset = 0

    def __call__(self, record: tuple[bytes, bytes | None], timestamp: int = 1000) -> StoredRow | None:
        key, value = record
        self.contents.take(Raw("customers", value, key, offset=self.offset, timestamp=timestamp))
        self.contents.flush()
        self.offset += 1
        return self.contents.get(json.loads(key)["id"])


@pytest.fixture
def log(tmp_path: Path) -> Any:
    """A fresh table's contents."""
    made = Log(tmp_path)
    yield made
    made.store.close()


def name(found: StoredRow | None) -> str | None:
    """The name in a row that is there."""
    assert found is not None
    assert isinstance(found.row, Customer)
    return found.row.name


def test_a_row_carries_its_position_and_its_source_time(log: Log) -> None:
    """The decision names the record that a joined row came from."""
    log(body(1, "x", ts=50))
    found = log(body(2, "y"))
    assert found == StoredRow(Customer(id=2, name="y"), "customers", 0, 1, 1000)
    assert log.contents.get(1) == StoredRow(Customer(id=1, name="x"), "customers", 0, 0, 50)
    assert log.contents.get(3) is None


def test_numbers_stay_exact(log: Log) -> None:
    """A number that no double can hold comes back digit by digit."""
    text = b'{"op":"c","after":{"id":9007199254740993,"income":1234567890123456789.012345678901234567}}'
    found = log((b'{"id": 9007199254740993}', text))
    assert found is not None
    assert found.row == Customer(id=9007199254740993, income=Decimal("1234567890123456789.012345678901234567"))


def test_a_replayed_change_does_not_override_and_a_failover_does(log: Log) -> None:
    """Position and time both older: the row stands. Position older, time newer: taken and counted."""
    log(body(1, "new", ts=100, order=[9]))
    assert name(log(body(1, "old", ts=90, order=[8]))) == "new"
    assert name(log(body(1, "failed over", ts=110, order=[2]))) == "failed over"
    assert log.contents.counts == {"rows": 2, "replayed": 1, "went-back": 1}


def test_a_delete_keeps_its_position_against_a_replay(log: Log) -> None:
    """A deleted row does not come back because its connector repeats older changes."""
    log(body(1, ts=100, order=[9]))
    assert log(gone(1, ts=110, order=[10])) == StoredRow(None, "customers", 0, 1, 110, deleted=True)
    found = log(tombstone(1))
    assert found is not None
    assert found.offset == 1
    assert log(body(1, ts=100, order=[9])) == found
    assert name(log(body(1, "again", ts=120, order=[11]))) == "again"


def test_the_tombstone_of_a_replayed_delete_deletes_nothing(log: Log) -> None:
    """A row that was deleted, made anew, and whose delete is replayed with its tombstone is still there."""
    log(body(1, "anew", ts=120, order=[11]))
    log(gone(1, ts=110, order=[10]))
    assert name(log(tombstone(1))) == "anew"
    deleted = log(tombstone(1))
    assert deleted is not None
    assert deleted.deleted


def test_a_tombstone_alone_deletes(log: Log) -> None:
    """Compaction may have removed the delete itself."""
    log(body(1))
    found = log(tombstone(1))
    assert found is not None
    assert found.deleted
    assert log(tombstone(2)) is None


def test_columns_that_were_not_sent_keep_what_older_records_sent(log: Log) -> None:
    """An unchanged TOAST column is not lost by an update that leaves it out, however often."""
    log(body(1, "long", after={"id": 1, "name": "long", "income": 5}))
    for income in (6, 7):
        found = log(body(1, after={"id": 1, "name": None, "income": income}, unavailable=["name"]))
        assert found is not None
        assert found.row == Customer(id=1, name="long", income=Decimal(income))
    assert found is not None
    assert not found.unavailable
    stored = log.store.get(row_key(("id",), 1) or b"")
    assert stored is not None
    assert [raw.offset for raw in unpack(stored, "customers").records] == [2, 0]
    unknown = log(body(2, None, unavailable=["name"]))
    assert unknown is not None
    assert unknown.unavailable == {"name"}
    assert name(log(body(2, "now"))) == "now"


def test_bad_rows_are_counted_and_change_nothing(log: Log) -> None:
    """Neither bytes that are no change nor a key that is none stop the table."""
    log(body(1, "x"))
    assert name(log((b'{"id": 1}', b"\xff"))) == "x"
    log.contents.take(Raw("customers", b'{"after": {"id": 3}}', b'{"wrong": 1}', offset=5))
    log.contents.take(Raw("customers", b'{"after": {"id": 3}}', b'{"id": null}', offset=6))
    assert log.contents.counts["fault:not-json"] == 1
    assert log.contents.counts["fault:join-key"] == 2
    assert log.contents.meta.faults == 3


def test_a_truncate_empties_the_table_of_what_was_written_before_it(log: Log) -> None:
    """Rows of other partitions that are read later but were written earlier are gone as well."""
    log(body(1), timestamp=1000)
    assert name(log(body(2), timestamp=1000)) == "a"
    log.contents.take(Raw("customers", b'"truncate"', None, offset=8, timestamp=2000))
    log.contents.flush()
    late = log(body(3), timestamp=1500)
    assert late is not None
    assert late.deleted
    assert [r is not None and r.deleted for r in (log.contents.get(1), log.contents.get(2))] == [True, True]
    assert name(log(body(4), timestamp=2500)) == "a"


def test_a_row_that_no_longer_fits_its_model_is_missing_with_its_fault(tmp_path: Path) -> None:
    """A new row model reads the old store; what it can not read is named, not raised."""
    log = Log(tmp_path)
    log(body(1))
    strict = Contents(SPEC, lambda r: Fault("decode", "invalid", "no"), log.store, Meta("x"), cache_rows=2)
    found = strict.get(1)
    assert found is not None
    assert (found.row, found.deleted) == (None, False)
    assert found.fault == Fault("decode", "invalid", "no")
    log.store.close()


def test_the_cache_forgets_and_is_never_older_than_the_store(log: Log) -> None:
    """Rows beyond the cache's size are read from the store again, changed ones as they now are."""
    for number in range(5):
        log(body(number, str(number)))
    assert [name(log.contents.get(n)) for n in range(5)] == list("01234")
    assert len(log.contents._cache) == 2
    assert name(log(body(4, "new"))) == "new"


class Applicant(BaseModel):
    """A few columns of the captured table."""

    id: int
    applicant: str | None = None
    score: int | None = None


@pytest.mark.parametrize(
    ("capture", "score", "deleted"),
    [("plain", 701, {2, 1001}), ("schema", 702, {3, 4, 1001}), ("unwrap", 703, {5, 6, 1001})],
)
def test_what_debezium_wrote_becomes_the_rows_of_its_table(
    tmp_path: Path, capture: str, score: int, deleted: set[int]
) -> None:
    """Captured inserts, updates, a changed key and back, deletes with and without tombstones, in each of three encodings."""
    spec: TopicSpec[Any] = TopicSpec(name="loans", kind="change", row=Applicant, key=("id",))
    store = Store(tmp_path)
    contents = Contents(spec, decoder(spec), store, Meta("x"), cache_rows=10)
    for offset, line in enumerate((ROOT / f"tests/data/debezium/{capture}.jsonl").read_text().splitlines()):
        one = json.loads(line)
        if one["topic"] == "bank.public.loan_application":
            key, value = (text.encode() if text is not None else None for text in (one["key"], one["value"]))
            contents.take(Raw(one["topic"], value, key, offset=offset, timestamp=offset))
    contents.flush()
    found = {n: contents.get(n) for n in (1, *deleted)}
    assert found[1] is not None
    assert found[1].row == Applicant(id=1, applicant="Ana", score=score)
    assert all(row is not None and row.deleted for n, row in found.items() if n != 1)
    assert set(contents.counts) == {"rows", "deletes"}
    store.close()


async def test_a_sweep_forgets_what_the_rebuilt_log_does_not_name(log: Log) -> None:
    """After a rebuild only rows of the log are left; until then the old ones answer."""
    log(body(1, ts=100, order=[9]))
    log(body(2, ts=100, order=[9]))
    log.contents.meta = Meta("x", generation=1)
    assert name(log(body(1, "older but in the log", ts=50, order=[5]))) == "older but in the log"
    assert name(log.contents.get(2)) == "a"
    await log.contents.sweep()
    assert log.contents.get(2) is None
    assert name(log.contents.get(1)) == "older but in the log"
    assert not log.contents.meta.building


def test_two_workers_take_two_stores_and_find_them_again(tmp_path: Path) -> None:
    """A store belongs to one process at a time; whoever comes next goes on with the first free one."""
    one = Store(tmp_path)
    one.write({b"k": b"1"}, Meta("x"))
    two = Store(tmp_path)
    assert one.path != two.path
    assert two.get(b"k") is None
    one.close()
    three = Store(tmp_path)
    assert three.path == one.path
    assert three.get(b"k") == b"1"
    two.close()
    three.close()


def test_what_was_written_outlives_a_kill(tmp_path: Path) -> None:
    """A worker that dies at once leaves rows and positions of one write together, and its store to the next."""
    program = (
        "import os, sys; from pathlib import Path; from topics.reference.store import Meta, Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for n in range(50): store.write({b'%d' % n: b'x' * 100}, Meta('x', positions={0: n + 1}))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    store = Store(tmp_path)
    assert store.path.name == "0"
    assert store.meta is not None
    assert store.meta.positions == {0: 50}
    assert len(list(store.rows())) == 50
    store.close()


@pytest.mark.parametrize("pattern", ["MANIFEST*", "CURRENT"])
def test_a_damaged_store_is_started_anew(tmp_path: Path, pattern: str) -> None:
    """Broken files cost a rebuild, not the worker."""
    store = Store(tmp_path)
    store.write({b"k": b"1"}, Meta("x"))
    store.close()
    for path in store.path.glob(pattern):
        path.write_bytes(b"\x00garbage")
    again = Store(tmp_path)
    assert again.meta is None
    assert again.get(b"k") is None
    again.close()


def test_a_store_of_another_format_is_started_anew(tmp_path: Path) -> None:
    """A later version of this program does not misread an older store."""
    store = Store(tmp_path)
    store.write({b"k": b"1"}, Meta("x", format=0))
    store.close()
    again = Store(tmp_path)
    assert (again.meta, again.get(b"k")) == (None, None)
    again.close()


# --- in memory


def test_the_table_in_memory_follows_the_same_rules() -> None:
    """Trying an agent without Kafka joins as a worker does."""
    table = MemoryTable(SPEC)
    new = SourcePosition(name="pg", ts_ms=100, order=(9,))
    old = SourcePosition(name="pg", ts_ms=90, order=(8,))
    assert table.put(Change("c", {"id": 1}, Customer(id=1, name="long"), source=old), offset=1)
    hidden = Change("u", {"id": 1}, Customer(id=1, name=None), source=new, unavailable=frozenset({"name"}))
    assert table.put(hidden, offset=2)
    assert not table.put(Change("u", {"id": 1}, Customer(id=1, name="old"), source=old), offset=3)
    assert table.get((1,)) == StoredRow(Customer(id=1, name="long"), "customers", 0, 2, 100)
    assert table.put(Change("d", {"id": 1}, None), offset=4, timestamp=7)
    assert table.get(1) == StoredRow(None, "customers", 0, 4, 7, deleted=True)
    assert not table.put(Change("c", {"id": None}, Customer(id=1)))


async def test_waiting_ends_when_the_row_comes_and_leaves_nothing_behind() -> None:
    """A waiter gets the row at once; one that waits in vain gets what there is; both are forgotten."""
    table = MemoryTable(SPEC)
    waiting = asyncio.create_task(table.wait_for(1, 30))
    cancelled = asyncio.create_task(table.wait_for(1, 30))
    await asyncio.sleep(0)
    cancelled.cancel()
    table.put(Change("c", {"id": 1}, Customer(id=1)))
    assert name(await waiting) == ""
    assert await table.wait_for(2, 0.01) is None
    table.put(Change("d", {"id": 1}, None))
    deleted = await table.wait_for(1, 0.01)
    assert deleted is not None
    assert deleted.deleted
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len(table._waiters) == 0


# --- on brokers


@asynccontextmanager
async def following(
    broker: LocalBroker, topic: str, folder: Path, *, ready: bool = True, **more: Any
) -> AsyncIterator[ReferenceTable]:
    """A started table of this topic."""
    spec = replace(SPEC, physical=topic)
    table = ReferenceTable(spec, {"bootstrap_servers": broker.bootstrap}, folder, decode=decode, **more)
    await table.start()
    try:
        if ready:
            async with asyncio.timeout(20):
                await table.ready()
        yield table
    finally:
        await table.stop()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true, at most ten seconds."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nothing of the table tells of each change
            await asyncio.sleep(0.01)


async def test_a_topic_is_read_whole_and_followed(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Ready means that every row written before the start is there; later ones arrive and wake who waits for them."""
    name_ = await create_topic(broker.bootstrap, topic(), 3, cleanup_policy="compact")
    await produce(broker.bootstrap, name_, [body(n, str(n)) for n in range(700)])
    async with following(broker, name_, tmp_path) as table:
        assert [name(table.get(n)) for n in range(700)] == [str(n) for n in range(700)]
        assert sum(p.offset for p in table.positions()) == 700
        assert {p.partition for p in table.positions()} == {0, 1, 2}
        waiting = asyncio.create_task(table.wait_for(7000, 10))
        await asyncio.sleep(0)
        await produce(broker.bootstrap, name_, [body(7000, "late"), gone(1)])
        assert name(await waiting) == "late"
        await until(lambda: (row := table.get(1)) is not None and row.deleted)


async def test_an_empty_topic_is_ready_at_once(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """Nothing to read is nothing to wait for."""
    name_ = await create_topic(broker.bootstrap, topic(), 2)
    async with following(broker, name_, tmp_path) as table:
        assert table.get(1) is None
        assert [p.offset for p in table.positions()] == [0, 0]


async def test_a_restart_goes_on_where_the_store_was_left(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Rows are not read twice, rows written meanwhile are found, and deletes are honoured over the restart."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(n) for n in range(20)])
    async with following(broker, name_, tmp_path) as table:
        assert table.counts["rows"] == 20
    await produce(broker.bootstrap, name_, [body(50), gone(3)])
    async with following(broker, name_, tmp_path) as table:
        assert table.counts == {"rows": 1, "deletes": 1}
        assert name(table.get(19)) == "a"
        found = table.get(3)
        assert found is not None
        assert (found.deleted, found.offset) == (True, 21)


async def test_a_topic_made_anew_under_its_old_name_is_noticed(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """The record at the position is another one: the store is rebuilt, and rows of the old topic are gone."""
    first = await create_topic(broker.bootstrap, topic(), 1)
    second = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, first, [body(n, "old") for n in range(5)])
    await produce(broker.bootstrap, second, [body(n, "new") for n in range(3, 12)])
    async with following(broker, first, tmp_path) as table:
        assert name(table.get(0)) == "old"
    # what a worker finds after the topic was deleted and made anew, without waiting for a broker to do it
    store = Store(tmp_path)
    assert store.meta is not None
    store.write({}, replace(store.meta, identity=store.meta.identity.replace(first, second)))
    store.close()
    async with following(broker, second, tmp_path) as table:
        assert table.counts["rebuilds"] == 1
        assert table.get(0) is None
        assert name(table.get(3)) == "new"
        assert [p.offset for p in table.positions()] == [9]


async def test_a_position_beyond_the_end_of_the_log_means_another_log(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A shorter log than was read is not the one that was read."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path):
        pass
    store = Store(tmp_path)
    assert store.meta is not None
    row = store.get(row_key(("id",), 1) or b"")
    assert row is not None
    store.write({row_key(("id",), 9) or b"": row}, replace(store.meta, positions={0: 100}))
    store.close()
    async with following(broker, name_, tmp_path) as table:
        assert table.counts["rebuilds"] == 1
        assert [p.offset for p in table.positions()] == [1]
        assert table.get(9) is None


async def test_a_store_that_may_have_missed_deletes_is_rebuilt(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """After half of delete.retention.ms a delete may have come and gone unseen."""
    name_ = await create_topic(broker.bootstrap, topic(), 1, cleanup_policy="compact")
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as table:
        now = table._wall_ms()
    async with following(broker, name_, tmp_path, wall_ms=lambda: now + 11 * 3_600_000) as table:
        assert table.counts["rebuilds"] == 0
    async with following(broker, name_, tmp_path, wall_ms=lambda: now + 13 * 3_600_000) as table:
        assert table.counts["rebuilds"] == 1
        assert name(table.get(1)) == "a"


async def test_a_running_table_that_lost_touch_for_long_is_rebuilt(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A process that was stopped, or cut off, for half of delete.retention.ms does not go on as if nothing had happened."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as table:
        await until(lambda: table._caught_up == {0})
        table._rows.meta.fresh[0] -= 13 * 3_600_000
        await until(lambda: table.counts["rebuilds"] == 1)
        assert name(table.get(1)) == "a"
        await until(lambda: not table._rows.meta.building)
        assert table.counts["rows"] == 2


async def test_bad_records_do_not_stop_a_table(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """What can not be read is counted; the rows around it are there."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1), (b'{"id": 2}', b"\xff"), body(3)])
    async with following(broker, name_, tmp_path) as table:
        assert table.counts["fault:not-json"] == 1
        assert name(table.get(3)) == "a"
    other = replace(SPEC, physical=name_, row=OlderCustomer)
    table = ReferenceTable(other, {"bootstrap_servers": broker.bootstrap}, tmp_path, decode=decode)
    await table.start()
    await table.ready()
    assert table.counts["rebuilds"] == 1
    await table.stop()


async def test_what_a_receipt_names_is_waited_for(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """A successor does not decide with an older table than its predecessor's."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path, ready=False) as table:
        table.require([Position(name="x", topic="other", partition=0, offset=99)])
        table.require([Position(name="customers", topic=name_, partition=0, offset=2)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await table.ready()
        await produce(broker.bootstrap, name_, [body(2)])
        async with asyncio.timeout(10):
            await table.ready()
        assert name(table.get(2)) == "a"
        assert table.counts["ahead"] == 0


async def test_a_receipt_that_is_ahead_of_the_log_does_not_hold_an_agent_for_ever(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A topic that was cut back is said, counted and gone on with."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as table:
        table.require([Position(name="customers", topic=name_, partition=0, offset=500)])
        async with asyncio.timeout(10):
            await table.ready()
        assert table.counts["ahead"] == 1


async def test_two_tables_on_one_folder_do_not_meet(broker: LocalBroker, topic: Callable[..., str], tmp_path: Path) -> None:
    """Two workers of one machine each follow the topic into a store of their own."""
    name_ = await create_topic(broker.bootstrap, topic(), 1)
    await produce(broker.bootstrap, name_, [body(1)])
    async with following(broker, name_, tmp_path) as one, following(broker, name_, tmp_path) as two:
        assert name(one.get(1)) == name(two.get(1)) == "a"
        assert one._store is not None
        assert two._store is not None
        assert one._store.path != two._store.path


async def test_a_topic_that_is_not_there_is_named(broker: LocalBroker, tmp_path: Path) -> None:
    """The error says which topic; nothing stays open."""
    spec = replace(SPEC, physical="absent-topic")
    table = ReferenceTable(spec, {"bootstrap_servers": broker.bootstrap}, tmp_path, decode=decode)
    with pytest.raises(TopicError, match="absent-topic"):
        await table.start()


async def test_no_broker_is_a_broker_error(tmp_path: Path) -> None:
    """A caller needs to know one tree of exceptions only."""
    spec = replace(SPEC, physical="t")
    table = ReferenceTable(spec, {"bootstrap_servers": f"127.0.0.1:{free_port()}"}, tmp_path, decode=decode)
    with pytest.raises(BrokerError):
        await table.start()


@pytest.mark.kafka
async def test_rows_of_an_aborted_transaction_are_never_seen(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Read committed: neither while the transaction is open nor after; its markers do not keep the table from being ready."""
    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic("tx"))
    await producer.start()
    key, value = body(1, "committed")
    async with producer.transaction():
        await producer.send_and_wait(name_, value, key)
    await producer.begin_transaction()
    await producer.send_and_wait(name_, body(1, "aborted")[1], key)
    async with following(kafka, name_, tmp_path) as table:
        assert name(table.get(1)) == "committed"
        await producer.abort_transaction()
        async with producer.transaction():
            key2, value2 = body(2, "next")
            await producer.send_and_wait(name_, value2, key2)
        assert name(await table.wait_for(2, 10)) == "next"
        assert name(table.get(1)) == "committed"
    await producer.stop()
    async with following(kafka, name_, tmp_path) as table:
        assert table.counts["rebuilds"] == 0
        assert name(table.get(1)) == "committed"


@pytest.mark.kafka
async def test_a_log_that_was_cut_below_the_position_is_read_anew(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Records that retention removed unread may have been deletes: what is not in the log any more is forgotten."""
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete  # only this test needs to cut a log
    from aiokafka.structs import TopicPartition

    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    await produce(kafka.bootstrap, name_, [body(1)])
    async with following(kafka, name_, tmp_path):
        pass
    await produce(kafka.bootstrap, name_, [gone(1), body(2), body(3)])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(name_, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    async with following(kafka, name_, tmp_path) as table:
        assert table.counts["rebuilds"] == 1
        assert table.get(1) is None
        assert name(table.get(3)) == "a"


@pytest.mark.kafka
async def test_a_running_table_is_rebuilt_when_partitions_are_added(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Rows of the new partitions are found, and lookups are answered all the while."""
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions  # only this test adds partitions

    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    await produce(kafka.bootstrap, name_, [body(n) for n in range(10)])
    async with following(kafka, name_, tmp_path) as table:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_partitions({name_: NewPartitions(2)})
        await admin.close()
        await produce(kafka.bootstrap, name_, [body(77, "there")], partition=1)
        assert table._consumer is not None
        await table._consumer._client.force_metadata_update()  # or half a minute later by itself
        found = await table.wait_for(77, 10)
        assert name(found) == "there"
        assert name(table.get(9)) == "a"
        assert table.counts["rebuilds"] == 1
        await until(lambda: not table._rows.meta.building)
        assert {p.partition: p.offset for p in table.positions()} == {0: 10, 1: 1}


@pytest.mark.kafka
async def test_a_running_table_follows_over_a_cut_of_its_log(
    kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path
) -> None:
    """A position that falls out of the log while the table runs costs a rebuild, not the process."""
    name_ = await create_topic(kafka.bootstrap, topic(), 1)
    await produce(kafka.bootstrap, name_, [body(1)])
    async with following(kafka, name_, tmp_path) as table:
        assert table._consumer is not None
        await produce(kafka.bootstrap, name_, [body(2)])
        assert name(await table.wait_for(2, 10)) == "a"
        table._consumer.seek(next(iter(table._consumer.assignment())), 1000)
        await until(lambda: table.counts["rebuilds"] == 1)
        await produce(kafka.bootstrap, name_, [body(3)])
        assert name(await table.wait_for(3, 10)) == "a"
        assert name(table.get(1)) == "a"


@pytest.mark.kafka
async def test_a_broker_that_restarts_is_followed_on(kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path) -> None:
    """Lookups go on while the broker is away, and what is written after it comes back arrives; nothing is read twice."""
    name_ = await create_topic(kafka.bootstrap, topic(), 2)
    await produce(kafka.bootstrap, name_, [body(n) for n in range(10)])
    async with following(kafka, name_, tmp_path) as table:
        restart = asyncio.create_task(asyncio.to_thread(kafka.restart))
        await asyncio.sleep(0.5)
        assert name(table.get(1)) == "a"
        await restart
        await produce(kafka.bootstrap, name_, [body(10, "after")])
        assert name(await table.wait_for(10, 20)) == "after"
        assert table.counts == {"rows": 11}


async def test_a_topic_that_is_deleted_under_a_table_is_waited_for(
    topic: Callable[..., str], tmp_path: Path
) -> None:
    """A broker that lost everything costs the table nothing that it holds, and it follows the topic when it is back."""
    name_ = topic()
    with EmbeddedBroker() as mine:
        await create_topic(mine.bootstrap, name_, 1)
        await produce(mine.bootstrap, name_, [body(n, "old") for n in range(10)])
        async with following(mine, name_, tmp_path) as table:
            await asyncio.to_thread(mine.restart)
            await asyncio.sleep(0.5)
            assert name(table.get(1)) == "old"
            await create_topic(mine.bootstrap, name_, 1)
            await produce(mine.bootstrap, name_, [body(5, "new")])
            await until(lambda: table.counts["rebuilds"] >= 1 and not table._rows.meta.building)
            assert name(table.get(5)) == "new"
            assert table.get(1) is None
