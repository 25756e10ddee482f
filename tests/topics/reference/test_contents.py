"""What a table holds after each record: rows, deletes, replays, failovers, columns that were not sent."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from schemas.dead_letter import Fault
from tests.support.reference import SPEC, Customer, Log, body, gone, name, tombstone
from topics.decode import decoder
from topics.record import Raw
from topics.reference import StoredRow, row_key
from topics.reference.contents import Contents
from topics.reference.entry import unpack
from topics.reference.store import Meta, Store
from topics.spec import TopicSpec

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def log(tmp_path: Path) -> Any:
    """A fresh table's contents."""
    made = Log(tmp_path)
    yield made
    made.store.close()


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
def test_what_debezium_wrote_becomes_the_rows_of_its_table(tmp_path: Path, capture: str, score: int, deleted: set[int]) -> None:
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
