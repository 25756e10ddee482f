"""Every captured Debezium record, asserted by hand: PostgreSQL 15, Debezium 3.6.3, three converters."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from schemas.change import Change
from schemas.dead_letter import Fault
from tests.support.captures import captured
from topics.decode import Control, Decoded, decoder
from topics.record import RawRecord
from topics.spec import Encoding, TopicSpec, change_topic


class Loan(BaseModel):
    """All columns of the captured table that a row would read."""

    id: int
    applicant: str
    amount: Decimal | None
    rate: Decimal | None
    fee: Decimal | None
    score: int | None
    income: float | None
    ratio: float | None
    dob: date | None
    t_of_day: time | None
    t_tz: time | None
    created: datetime
    created6: datetime
    created_tz: datetime
    ival: timedelta
    doc: dict[str, Any] | None
    u: UUID
    tags: list[str] | None
    flag: bool | None
    raw: bytes | None
    ip: str | None
    xml: str | None
    big: str | None


class Identified(BaseModel):
    """The captured table with REPLICA IDENTITY FULL; column w was added while the capture ran."""

    id: int
    v: str | None
    w: int | None = None


class Anything(BaseModel):
    """A row that reads no column."""


class Keyless(BaseModel):
    """The captured table without a primary key."""

    a: int
    b: str


ENCODINGS = {
    "plain": Encoding(decimals={"amount": 2, "fee": 2}),
    "schema": Encoding(),
    "unwrap": Encoding(temporals={"t_of_day": "time_millis"}),
}
MICROS = {"plain": 1, "schema": 1, "unwrap": 1000}
"""The flattened capture was made with time.precision.mode=connect: milliseconds throughout."""


def loans(name: str) -> TopicSpec[Change[Loan]]:
    """The spec of the applications topic for one capture."""
    return change_topic("loan", Loan, key=("id",), encoding=ENCODINGS[name])


def outcomes(name: str, spec: TopicSpec[Any], topic: str) -> list[Any]:
    """Each record's change or control, unpacked; fails the test on a fault."""
    found: list[Any] = []
    decode = decoder(spec)
    for raw in captured(name, topic):
        result = decode(raw)
        assert isinstance(result, (Decoded, Control)), result
        found.extend(result.values if isinstance(result, Decoded) else [result])
    return found


def described(found: list[Any]) -> list[tuple[str, Any]]:
    """(op or kind of control, id) of each."""
    return [(f.kind if isinstance(f, Control) else f.op, (f.key or {}).get("id")) for f in found]


def test_plain_sequence() -> None:
    """Snapshot, insert, update, key change (delete, tombstone, create), delete and re-key come out in their order."""
    found = outcomes("plain", loans("plain"), "loan_application")
    assert described(found) == [
        ("r", 1), ("c", 2), ("u", 1), ("d", 1), ("tombstone", 1), ("c", 1001),
        ("d", 2), ("tombstone", 2), ("d", 1001), ("tombstone", 1001), ("c", 1),
    ]  # fmt: skip


def test_schema_sequence() -> None:
    """The same with schemas on the wire, and a row whose large column is unchanged."""
    found = outcomes("schema", loans("schema"), "loan_application")
    assert described(found) == [
        ("c", 3), ("u", 1), ("d", 1), ("tombstone", 1), ("c", 1001), ("c", 4), ("u", 4), ("u", 4), ("d", 4), ("tombstone", 4),
        ("d", 3), ("tombstone", 3), ("d", 1001), ("tombstone", 1001), ("c", 1),
    ]  # fmt: skip


def test_unwrapped_sequence() -> None:
    """The flattened form: operations out of `__op` and the text "true" in `__deleted`."""
    found = outcomes("unwrap", loans("unwrap"), "loan_application")
    assert described(found) == [
        ("c", 5), ("u", 1), ("d", 1), ("c", 1001), ("c", 6), ("u", 6), ("u", 6), ("d", 6), ("d", 5), ("d", 1001), ("c", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "schema", "unwrap"])
def test_every_column_is_exact(name: str) -> None:
    """Decimals, dates, times and intervals have the values of the SQL that wrote them, in all three encodings."""
    found = outcomes(name, loans(name), "loan_application")
    row = next(f.row for f in found if isinstance(f, Change) and f.op == "u" and f.key["id"] == 1)
    micro = 135572 // MICROS[name] * MICROS[name]
    assert (row.amount, row.rate, row.fee) == (Decimal("12345.67"), Decimal("0.0425"), Decimal("12.34"))
    assert (row.income, row.ratio) == (54000.5, 0.35)
    assert row.dob == date(1980, 2, 29)
    assert row.t_of_day == time(13, 14, 15, 123456 // MICROS[name] * MICROS[name])
    assert row.t_tz == time(11, 14, 15, tzinfo=UTC)
    assert row.created == datetime(2026, 11, 22, 0, 41, 11, 136000, tzinfo=UTC)
    assert row.created6 == datetime(2026, 11, 22, 0, 41, 11, micro, tzinfo=UTC)
    assert row.created_tz == datetime(2026, 11, 22, 0, 41, 11, 135572, tzinfo=UTC)
    assert row.ival == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert (row.doc, row.tags, row.flag, row.raw) == ({"k": 1}, ["a", "b"], True, b"\xde\xad\xbe\xef")
    assert row.u == UUID("9cc22b73-5f62-42a4-aaeb-6ffc959bd3e9")
    assert (row.ip, row.xml) == ("10.0.0.1", "<a/>")


@pytest.mark.parametrize("name", ["plain", "schema", "unwrap"])
def test_placeholders_are_no_row(name: str) -> None:
    """A delete under REPLICA IDENTITY DEFAULT has no old row, whatever Debezium filled in."""
    deletes = [f for f in outcomes(name, loans(name), "loan_application") if isinstance(f, Change) and f.op == "d"]
    assert len(deletes) >= 3
    assert all(f.before is None and f.after is None for f in deletes)


@pytest.mark.parametrize("name", ["plain", "schema", "unwrap"])
def test_full_identity_keeps_the_old_row(name: str) -> None:
    """REPLICA IDENTITY FULL gives the old row of a delete and, enveloped, of an update; the added column flows through."""
    spec = change_topic("full", Identified, key=("id",))
    found = outcomes(name, spec, "full_ident")
    changes = [f for f in found if isinstance(f, Change)]
    deletes = [f.before for f in changes if f.op == "d"]
    first = Identified(id=1, v="b", w=None if name == "plain" else 7)
    assert deletes == [first, Identified(id=9, v="z", w=7)]
    updates = [(f.before.v if f.before else None, f.row.v) for f in changes if f.op == "u"]
    assert updates == [(None if name == "unwrap" else "a", "b")]
    assert [f.row.w for f in changes if f.op == "c" and f.key["id"] == 9] == [7]
    assert [f.kind for f in found if isinstance(f, Control)].count("truncate") == (0 if name == "unwrap" else 1)


@pytest.mark.parametrize("name", ["plain", "schema", "unwrap"])
def test_keyless_table(name: str) -> None:
    """A table without a key has an empty key; its event id needs the transaction block, which flattening drops."""
    (found,) = outcomes(name, change_topic("nokey", Keyless, key=()), "nokey")
    assert (found.op, dict(found.key), found.row) == ("c", {}, Keyless(a=1, b="x"))
    assert bool(found.event_id) == (name != "unwrap")


@pytest.mark.parametrize("name", ["schema", "unwrap"])
def test_unavailable_value(name: str) -> None:
    """An unchanged TOAST column is None and named; a row that requires it is a fault that says so."""
    found = [f for f in outcomes(name, loans(name), "loan_application") if isinstance(f, Change) and f.unavailable]
    assert [(f.op, f.row.applicant, f.row.big, set(f.unavailable)) for f in found] == [
        ("u", "Tia", None, {"big"}), ("u", "Tib", None, {"big"}),
    ]  # fmt: skip

    class Strict(BaseModel):
        id: int
        big: str

    strict = decoder(change_topic("s", Strict, key=("id",)))
    results = [strict(raw) for raw in captured(name, "loan_application")]
    assert [(f.reason, f.field) for f in results if isinstance(f, Fault)] == [("value-unavailable", "big")] * 2

    class Defaulted(BaseModel):
        id: int
        big: str = "?"

    values = [decoder(change_topic("s", Defaulted, key=("id",)))(raw) for raw in captured(name, "loan_application")]
    kept = [v.values[0] for v in values if isinstance(v, Decoded)]
    assert [(k.row.big, set(k.unavailable)) for k in kept if isinstance(k, Change) and k.unavailable] == [("?", {"big"})] * 2


@pytest.mark.parametrize("name", ["plain", "schema", "unwrap"])
def test_controls_are_recognised(name: str) -> None:
    """Heartbeats, transaction markers, logical messages, truncates and tombstones are controls, never faults or rows."""
    kinds: Counter[tuple[str, str]] = Counter()
    for raw in captured(name):
        spec: TopicSpec[Any] = loans(name)
        if not raw.topic.endswith("loan_application"):
            spec = change_topic("other", Identified if raw.topic.endswith("full_ident") else Anything, key=("id",))
        result = decoder(spec)(raw)
        assert isinstance(result, (Decoded, Control)), (raw.topic, result)
        if isinstance(result, Control):
            kinds[result.kind, raw.topic.rpartition(".")[2]] += 1
    assert kinds["logical-message", "message"] == 1
    if name != "unwrap":
        assert kinds["heartbeat", "bank"] >= 9
        assert kinds["transaction-marker", "transaction"] == {"plain": 22, "schema": 30}[name]
        assert kinds["truncate", "full_ident"] == 1
        assert kinds["tombstone", "full_ident"] == 2


@pytest.mark.parametrize("name", ["plain", "schema", "unwrap"])
def test_event_ids_tell_events_apart_and_repeats_together(name: str) -> None:
    """All changes of a capture have different ids, those of one transaction and one LSN too; the same record has the same."""
    decode = decoder(loans(name))
    found = [f for f in outcomes(name, loans(name), "loan_application") if isinstance(f, Change)]
    again = [f for raw in captured(name, "loan_application") if isinstance(f := decode(raw), Decoded)]
    ids = [f.event_id for f in found]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert ids == [f.values[0].event_id for f in again if isinstance(f.values[0], Change)]


def test_a_repeat_after_a_restart_has_the_same_id() -> None:
    """Debezium's own processing time differs between deliveries of one event; the id does not."""
    raw = captured("plain", "loan_application")[2]
    assert raw.value is not None
    later = raw.value.replace(b'"ts_ms":1795308328024', b'"ts_ms":1795308999999')
    assert later != raw.value
    first, second = (decoder(loans("plain"))(r) for r in (raw, type(raw)(raw.topic, later, raw.key)))
    assert isinstance(first, Decoded)
    assert isinstance(second, Decoded)
    assert first.values[0].event_id == second.values[0].event_id  # type: ignore[union-attr]  # both are changes


def test_positions_ascend() -> None:
    """The source order of a capture's streamed changes never goes back."""
    for name in ("plain", "schema", "unwrap"):
        orders = [f.source.order for f in outcomes(name, loans(name), "loan_application") if isinstance(f, Change)]
        assert orders == sorted(orders)
        assert all(len(order) == 2 for order in orders)


def test_the_source_is_read() -> None:
    """Connector, table, commit time and the snapshot flag are those of the source block."""
    first, second = outcomes("plain", loans("plain"), "loan_application")[:2]
    at = first.source
    assert (at.connector, at.name, at.db, at.schema, at.table) == ("postgresql", "bank", "bank", "public", "loan_application")
    assert (at.snapshot, second.source.snapshot) == (True, False)
    assert (at.ts_ms, first.event_ms) == (1795308307924, 1795308307924)


def test_a_schema_is_the_same_met_first_or_again() -> None:
    """A decoder that has met a schema gives what a fresh one gives."""
    used = decoder(loans("schema"))

    def fresh(raw: RawRecord) -> Any:
        return decoder(loans("schema"))(raw)

    for raw in captured("schema", "loan_application") * 2:
        assert used(raw) == fresh(raw)
