"""MySQL, SQL Server, MongoDB and Oracle in the forms their connectors document, and the controls that PostgreSQL has not."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from schemas.change import Change
from schemas.dead_letter import Fault
from tests.support.captures import record
from topics.decode import Control, Decoded, decoder
from topics.spec import Encoding, TopicSpec, change_topic


class Customer(BaseModel):
    """The row of Debezium's tutorial, with what differs between databases."""

    id: int
    first_name: str
    balance: Decimal | None = None
    born: date | None = None
    updated: datetime | None = None
    visits: int | None = None


class Document(BaseModel):
    """A MongoDB document; `_id` can not be a field name of pydantic's."""

    id: str = Field(alias="_id")
    name: str
    visits: int
    balance: Decimal
    seen: datetime
    token: UUID | None = None
    tags: list[str] = []


SPEC = change_topic("customers", Customer, key=("id",))
MONGO = change_topic("customers", Document, key=("_id",))


def change(spec: TopicSpec[Any], value: Any, key: Any = None, **headers: bytes) -> Change[Any]:
    """The only change in a record; fails the test on anything else."""
    result = decoder(spec)(record(value, key, headers))
    assert isinstance(result, Decoded), result
    (found,) = result.values
    assert isinstance(found, Change), found
    return found


def mysql(op: str, before: Any, after: Any, **source: Any) -> dict[str, Any]:
    """A MySQL envelope as documented."""
    at = {
        "version": "3.6.3.Final", "connector": "mysql", "name": "shop", "ts_ms": 1465581029100, "snapshot": "false",
        "db": "inventory", "table": "customers", "server_id": 223344, "gtid": None, "file": "mysql-bin.000003",
        "pos": 484, "row": 0, "thread": 7, "query": None,
    }  # fmt: skip
    return {"before": before, "after": after, "source": at | source, "op": op, "ts_ms": 1465581029523}


def test_mysql_update() -> None:
    """Both rows are there; DATETIME is micros, BIGINT UNSIGNED a number past 2^63; the order is file, position, row."""
    old = {"id": 1004, "first_name": "Anne", "visits": 18446744073709551615, "updated": 1465581029523000}
    found = change(SPEC, mysql("u", old, old | {"first_name": "Anne Marie"}, row=2), {"id": 1004})
    assert found.before == Customer(id=1004, first_name="Anne", visits=2**64 - 1, updated=found.row.updated)
    assert (found.row.first_name, found.row.visits) == ("Anne Marie", 18446744073709551615)
    assert found.row.updated == datetime(2016, 6, 10, 17, 50, 29, 523000, tzinfo=UTC)
    assert found.source.order == (3, 484, 2)
    assert (found.source.connector, found.source.db, found.event_ms) == ("mysql", "inventory", 1465581029100)


def test_mysql_delete_keeps_zeros() -> None:
    """MySQL logs whole rows, so that nulls and zeros in a deleted row are values, not placeholders."""
    found = change(SPEC, mysql("d", {"id": 1, "first_name": "", "visits": 0}, None), {"id": 1})
    assert found.before == Customer(id=1, first_name="", visits=0)


def test_mysql_event_ids() -> None:
    """Rows of one binlog event differ by their row number, also without a primary key; the same record has the same id."""
    row = {"id": 1, "first_name": "A"}
    keyless = change_topic("k", Customer, key=())
    ids = [change(keyless, mysql("c", None, row, row=n)).event_id for n in (0, 1, 1)]
    assert ids[0] != ids[1]
    assert ids[1] == ids[2]
    assert change(keyless, mysql("r", None, row, snapshot="true")).event_id == ""


def test_sqlserver_positions() -> None:
    """Commit LSN, change LSN and serial number order the changes; snapshot rows have no change LSN."""

    def envelope(op: str, **source: Any) -> dict[str, Any]:
        at = {"connector": "sqlserver", "name": "server1", "ts_ms": 1559729995937, "snapshot": "false", "db": "testDB",
              "schema": "dbo", "table": "customers", "commit_lsn": "00000027:00000758:0005", "event_serial_no": "2"}  # fmt: skip
        row = {"id": 1005, "first_name": "john", "updated": 1559729995937000000}
        return {"before": None, "after": row, "source": at | source, "op": op, "ts_ms": 1559729998706}

    snapshot = change(SPEC, envelope("r", change_lsn=None, snapshot="true", event_serial_no=None), {"id": 1005})
    first = change(SPEC, envelope("c", change_lsn="00000027:00000758:0003"), {"id": 1005})
    second = change(SPEC, envelope("u", change_lsn="00000027:00000758:0004"), {"id": 1005})
    commit = 0x27 << 48 | 0x758 << 16 | 5
    assert first.source.order == (commit, 0x27 << 48 | 0x758 << 16 | 3, 2)
    assert snapshot.source.order < first.source.order < second.source.order
    assert first.row.updated == datetime(2019, 6, 5, 10, 19, 55, 937000, tzinfo=UTC)
    assert len({snapshot.event_id, first.event_id, second.event_id}) == 3


def mongo(op: str, after: Any, **more: Any) -> dict[str, Any]:
    """A MongoDB envelope as documented: documents are JSON texts."""
    at = {
        "connector": "mongodb", "name": "fulfillment", "ts_ms": 1558965515000, "snapshot": "false", "db": "inventory",
        "rs": "rs0", "collection": "customers", "ord": 31, "lsid": None, "txnNumber": None,
    }  # fmt: skip
    text = None if after is None else json.dumps(after)
    return {"before": None, "after": text, "updateDescription": None, "source": at, "op": op, "ts_ms": 1558965515240} | more


DOCUMENT = {
    "_id": {"$oid": "596e275826f08b2730779e1f"}, "name": "Anne", "visits": {"$numberLong": "9007199254740993"},
    "balance": {"$numberDecimal": "12345678901234567890.10"}, "seen": {"$date": 1558965515240},
    "token": {"$binary": {"base64": "nMIrc19iQqSq62/8lZvT6Q==", "subType": "04"}}, "tags": ["a"],
}  # fmt: skip
OBJECT_KEY = {"id": '{"$oid":"596e275826f08b2730779e1f"}'}


def test_mongo_create() -> None:
    """Extended JSON becomes plain exact values, and the key compares with the document's `_id`."""
    found = change(MONGO, mongo("c", DOCUMENT), OBJECT_KEY)
    row = found.row
    assert (row.id, row.visits, row.balance) == (found.key["_id"], 9007199254740993, Decimal("12345678901234567890.10"))
    assert row.seen == datetime(2019, 5, 27, 13, 58, 35, 240000, tzinfo=UTC)
    assert row.token == UUID("9cc22b73-5f62-42a4-aaeb-6ffc959bd3e9")
    assert (found.source.table, found.source.order) == ("customers", (1558965515000, 31))


@pytest.mark.parametrize("moment", ["2019-05-27T13:58:35.240Z", {"$numberLong": "1558965515240"}])
def test_mongo_dates(moment: Any) -> None:
    """`$date` comes as ISO text (relaxed), as a long (canonical), or as bare milliseconds (strict mode)."""
    row = change(MONGO, mongo("r", DOCUMENT | {"seen": {"$date": moment}}), OBJECT_KEY).row
    assert row.seen == datetime(2019, 5, 27, 13, 58, 35, 240000, tzinfo=UTC)


def test_mongo_update_and_delete() -> None:
    """A full update is a row; a delete has its key; two updates of one document in one transaction are two events."""
    first, second = (
        change(MONGO, mongo("u", DOCUMENT, updateDescription={"updatedFields": json.dumps({"visits": n})}), OBJECT_KEY)
        for n in (1, 2)
    )
    assert first.row.name == "Anne"
    assert first.event_id
    assert first.event_id != second.event_id
    gone = change(MONGO, mongo("d", None), OBJECT_KEY)
    assert (gone.after, gone.before, dict(gone.key)) == (None, None, {"_id": "596e275826f08b2730779e1f"})
    tomb = decoder(MONGO)(record(None, OBJECT_KEY))
    assert tomb == Control("tombstone", {"_id": "596e275826f08b2730779e1f"})


@pytest.mark.parametrize("extra", [{"updateDescription": {"updatedFields": '{"visits": 2}'}}, {"patch": '{"$set": {}}'}, {}])
def test_mongo_partial_update(extra: Any) -> None:
    """An update without the document can not be decided: the fault says what to configure."""
    fault = decoder(MONGO)(record(mongo("u", None, **extra), OBJECT_KEY))
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.field) == ("partial-update", "after")
    assert "change_streams_update_full" in fault.detail


def test_mongo_text_and_number_keys() -> None:
    """Keys are JSON texts: a quoted text and a number come out as themselves."""

    class Numbered(BaseModel):
        id: int = Field(alias="_id")

    assert change(MONGO, mongo("c", DOCUMENT | {"_id": "abc"}), {"id": '"abc"'}).key == {"_id": "abc"}
    assert change(change_topic("n", Numbered, key=("_id",)), mongo("c", {"_id": 1004}), {"id": "1004"}).key == {"_id": 1004}


def test_oracle_orders_but_names_no_event() -> None:
    """One SCN may hold several changes, so a repeat can not be told: the id is empty rather than wrong."""
    at = {"connector": "oracle", "scn": "2122185", "commit_scn": "2122190", "ts_ms": 1520085154000, "table": "CUSTOMERS"}
    found = change(SPEC, {"before": None, "after": {"id": 1, "first_name": "A"}, "source": at, "op": "c"}, {"id": 1})
    assert (found.source.order, found.event_id) == ((2122190, 2122185), "")


@pytest.mark.parametrize("value", [
    {"source": {"connector": "mysql"}, "ts_ms": 1, "databaseName": "inventory", "ddl": "ALTER TABLE", "tableChanges": []},
    {"source": {"server": "s"}, "position": {}, "databaseName": "inventory", "ddl": "CREATE TABLE x"},
])  # fmt: skip
def test_schema_changes(value: Any) -> None:
    """Schema-change records, and those of the schema history topic, are controls."""
    assert decoder(SPEC)(record(value, {"databaseName": "inventory"}, topic="shop")) == Control("schema-change")


def test_changed_primary_key() -> None:
    """The create of the new key names the old one; the delete of the old key does not."""
    created = mysql("c", None, {"id": 2, "first_name": "A"})
    found = change(SPEC, created, {"id": 2}, **{"__debezium.oldkey": b'{"id":1}'})
    assert found.key_changed_from == {"id": 1}
    schema = b'{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":1}}'
    assert change(SPEC, created, {"id": 2}, **{"__debezium.oldkey": schema}).key_changed_from == {"id": 1}
    assert change(SPEC, created, {"id": 2}, **{"__debezium.oldkey": b"Struct{id=1}"}).key_changed_from == {"id": 1}
    gone = mysql("d", {"id": 1, "first_name": "A"}, None)
    assert change(SPEC, gone, {"id": 1}, **{"__debezium.newkey": b'{"id":2}'}).key_changed_from is None


def test_flat_rows_with_metadata_in_headers() -> None:
    """ExtractNewRecordState may put operation and position into headers; a row without any is an update (an upsert)."""
    row = {"id": 1, "first_name": "A"}
    found = change(SPEC, row, {"id": 1}, __op=b"c", __lsn=b"99", __source_ts_ms=b"1465581029100", __table=b"customers")
    assert (found.op, found.source.order, found.event_ms, found.source.table) == ("c", (99, 99), 1465581029100, "customers")
    assert change(SPEC, row, {"id": 1}).op == "u"
    assert change(SPEC, row | {"__deleted": True}, {"id": 1}).op == "d"


def test_declared_envelope() -> None:
    """A topic declared as enveloped refuses flat rows; declared as flat, columns called op and source are columns."""

    class Signal(BaseModel):
        id: int
        op: str

    flat = {"id": 1, "op": "c", "source": {"x": 1}}
    enveloped = change_topic("e", Customer, key=("id",), encoding=Encoding(unwrapped=False))
    fault = decoder(enveloped)(record({"id": 1, "first_name": "A"}))
    assert isinstance(fault, Fault)
    assert fault.reason == "not-an-envelope"
    assert change(change_topic("f", Signal, key=("id",), encoding=Encoding(unwrapped=True)), flat).row.op == "c"


@pytest.mark.parametrize(("value", "reason", "field"), [
    (mysql("x", None, {"id": 1}), "unknown-op", "op"),
    (mysql("c", None, None), "invalid-field", "after"),
    (mysql("c", None, {"id": 1}), "invalid-field", "first_name"),
    (mysql("c", None, {"id": True, "first_name": "A"}), "invalid-field", "id"),
    (mysql("c", None, {"id": 1, "first_name": "A", "balance": "EtaH"}), "decimal-scale-unknown", "balance"),
    (mysql("c", None, {"id": 1, "first_name": "A", "updated": 253402214400000}), "ambiguous-time", "updated"),
    (mysql("c", None, {"id": 1, "first_name": "A", "born": 2147483647}), "invalid-time", "born"),
    ([1], "not-an-object", None),
])  # fmt: skip
def test_faults_name_reason_and_field(value: Any, reason: str, field: str | None) -> None:
    """What is wrong with a change is said by a code and the field, never by an exception."""
    fault = decoder(SPEC)(record(value, {"id": 1}))
    assert isinstance(fault, Fault), fault
    assert (fault.stage, fault.reason, fault.field) == ("decode", reason, field)


def test_a_fault_counts_and_does_not_quote() -> None:
    """The first bad field is named, the others are counted, and a long value is not in the detail."""
    secret = "4111 1111 1111 1111 belongs to Anne"
    fault = decoder(SPEC)(record(mysql("c", None, {"id": [1], "first_name": {"a": secret}, "born": secret}), {"id": 1}))
    assert isinstance(fault, Fault)
    assert fault.field == "id"
    assert "(and 2 more)" in fault.detail
    assert "Anne" not in str(fault)


def test_replica_identity_settles_it() -> None:
    """A site that declares its replica identity is believed, either way."""
    gone = {"before": {"id": 1, "first_name": ""}, "after": None, "source": {"connector": "postgresql", "lsn": 7}, "op": "d"}
    full, default = (
        change_topic("r", Customer, key=("id",), encoding=Encoding(replica_identity=identity)) for identity in ("full", "default")
    )
    real = gone | {"before": {"id": 1, "first_name": "Anne"}}
    assert change(full, gone, {"id": 1}).before == Customer(id=1, first_name="")
    assert change(default, real, {"id": 1}).before is None
    assert change(SPEC, gone, {"id": 1}).before is None
    assert change(SPEC, real, {"id": 1}).before == Customer(id=1, first_name="Anne")


def test_keys_have_the_types_of_the_row() -> None:
    """A key column is what the row's field is, so that a join finds it; without a record key the row's columns are taken."""

    class Order(BaseModel):
        id: UUID
        day: date

    spec = change_topic("o", Order, key=("id", "day"))
    row = {"id": "9cc22b73-5f62-42a4-aaeb-6ffc959bd3e9", "day": 3711}
    wanted = {"id": UUID("9cc22b73-5f62-42a4-aaeb-6ffc959bd3e9"), "day": date(1980, 2, 29)}
    assert change(spec, mysql("c", None, row), row).key == wanted
    assert change(spec, mysql("c", None, row)).key == wanted
    assert change(SPEC, mysql("c", None, {"id": 1, "first_name": "A"}), b"1").key == {"id": 1}
