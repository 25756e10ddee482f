"""Readings in every shape, events, CloudEvents around both, cleaning and the clock."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.change import Change
from schemas.dead_letter import Fault
from schemas.errors import ConfigError
from schemas.event import Event
from schemas.reading import Reading
from tests.support.captures import NOW, record
from topics.decode import Control, Decoded, Skipped, decoder
from topics.record import Raw
from topics.spec import Clean, Clock, Encoding, Range, Unit, change_topic, event_topic, out_topic, reading_topic


class Machine(BaseModel):
    """What a machine measures."""

    temp: float | None = None
    rpm: int | None = None
    exact: Decimal | None = None
    state: str | None = None
    door: bool | None = None


SPEC = reading_topic("readings", Machine)


def readings(value: Any, key: Any = None, spec: Any = SPEC, headers: dict[str, bytes] | None = None) -> list[Any]:
    """The elements of a record; fails the test on a fault of the whole."""
    result = decoder(spec)(record(value, key, headers))
    assert isinstance(result, Decoded), result
    return list(result.values)


def fault(value: Any, key: Any = None, spec: Any = SPEC, headers: dict[str, bytes] | None = None) -> Fault:
    """The fault of a record; fails the test on anything else."""
    result = decoder(spec)(record(value, key, headers))
    assert isinstance(result, Fault), result
    return result


@pytest.mark.parametrize("value", [
    {"device": "M-1", "ts": NOW, "temp": 21.5, "rpm": 1500},
    {"device": "M-1", "ts": NOW, "temp": "21.5", "rpm": "1500", "unknown": {"a": [1]}},
    {"device": "M-1", "ts": NOW, "metrics": [{"name": "temp", "value": 21.5, "unit": "Cel"}, {"name": "rpm", "value": 1500}]},
    {"device": "M-1", "ts": NOW, "values": {"temp": 21.5, "rpm": 1500}},
    [{"device": "M-1", "ts": NOW, "temp": 21.5, "rpm": 1500}],
    [{"bn": "M-1:", "bt": NOW // 1000, "n": "temp", "v": 21.5}, {"n": "rpm", "v": 1500}],
    [{"n": "M-1/temp", "t": NOW // 1000, "v": 21.5}, {"n": "M-1/rpm", "t": NOW // 1000, "v": 1500}],
])  # fmt: skip
def test_shapes_agree(value: Any) -> None:
    """Flat, metrics list, metrics map, array and SenML say the same reading."""
    (found,) = readings(value)
    assert (found.device, found.event_ms, found.row.temp, found.row.rpm) == ("M-1", NOW, 21.5, 1500)
    assert found.event_id


@pytest.mark.parametrize("moment", [
    NOW // 1000, NOW, NOW * 1000, NOW * 1_000_000, float(NOW // 1000), str(NOW),
    datetime.fromtimestamp(NOW / 1000, UTC).isoformat(), datetime.fromtimestamp(NOW / 1000, UTC).isoformat()[:19] + "Z",
])  # fmt: skip
def test_timestamps_are_told_by_magnitude(moment: Any) -> None:
    """Seconds, milli-, micro-, nanoseconds and ISO name one moment."""
    assert readings({"device": "a", "ts": moment})[0].event_ms == NOW


def test_a_configured_unit_beats_magnitude() -> None:
    """A declared unit is taken at its word."""
    spec = reading_topic("r", Machine, clock=None, encoding=Encoding(timestamps="ms"))
    assert readings({"device": "a", "ts": 86_400_000}, spec=spec)[0].event_ms == 86_400_000


def test_where_the_device_is_named() -> None:
    """By a configured field, a usual one, or the record's key as text, JSON text or object; without any it is a fault."""
    own = reading_topic("r", Machine, encoding=Encoding(device_field="who", time_field="when", id_field="no"))
    (found,) = readings({"who": 7, "when": NOW, "no": 5}, spec=own)
    assert (found.device, found.event_ms, found.event_id) == ("7", NOW, "7/5")
    for key in (b"k-1", b'"k-1"', {"device": "k-1"}, {"schema": None, "payload": {"device": "k-1"}}):
        assert readings({"temp": 1}, key)[0].device == "k-1"
    assert fault({"temp": 1}).reason == "missing-device"
    assert fault({"temp": 1, "device": True}).reason == "missing-device"


def test_event_ids_of_readings() -> None:
    """A repeat has the same id, other values at the same time another, and without a time there is none."""
    first, again, other = (readings({"device": "a", "ts": NOW, **v})[0].event_id for v in ({"temp": 1}, {"temp": 1}, {"rpm": 2}))
    assert first == again != other
    assert readings({"device": "a", "temp": 1})[0].event_id == ""
    assert readings({"device": "a", "event_id": "x9"})[0].event_id == "a/x9"


@pytest.mark.parametrize(("value", "reason", "field"), [
    ({"device": "a", "temp": True}, "invalid-field", "temp"),
    ({"device": "a", "temp": "NaN"}, "invalid-field", "temp"),
    ({"device": "a", "temp": "inf"}, "invalid-field", "temp"),
    ({"device": "a", "temp": "new"}, "invalid-field", "temp"),
    (b'{"device":"a","temp":1e400}', "invalid-field", "temp"),
    (b'{"device":"a","rpm":1e999999999}', "number-too-large", "rpm"),
    ({"device": "a", "rpm": 1.5}, "invalid-field", "rpm"),
    ({"device": "a", "ts": "yesterday"}, "invalid-time", "ts"),
    ({"device": "a", "ts": True}, "invalid-time", "ts"),
    ({"device": "a", "ts": 10**29}, "invalid-time", "ts"),
    ({"device": "a", "metrics": [{"name": "temp"}]}, "invalid-metric", "metrics.0"),
    ({"device": "a", "metrics": [{"name": "temp", "value": 1}, {"name": "temp", "value": 2}]}, "duplicate-metric", "metrics.1"),
    ("text", "not-an-object", None),
    (b'{"device":"a","temp":NaN}', "non-finite-number", None),
    ([{"bn": "a:", "bver": 11, "n": "temp", "v": 1}], "senml-version", "0.bver"),
    ([{"bn": "a:", "n": "temp", "v": 1, "must_": 1}], "senml-label", "0"),
])  # fmt: skip
def test_what_is_no_reading(value: Any, reason: str, field: str | None) -> None:
    """Each mistake is a fault with its own code and field."""
    found = fault(value)
    assert (found.stage, found.reason, found.field) == ("decode", reason, field)


def test_numbers_stay_exact() -> None:
    """A decimal field gets the digits of the wire, from numbers, texts and SenML sums alike."""
    digits = "123456789012345678901234.000000000000000000001"
    for text in (digits, f'"{digits}"'):
        raw = b'{"device":"a","exact":%s,"rpm":98765432109876543210}' % text.encode()
        (found,) = readings(raw)
        assert (found.row.exact, found.row.rpm) == (Decimal(digits), 98765432109876543210)
    (summed,) = readings(b'[{"bn":"a:","bv":0.1,"n":"exact","v":%s}]' % digits.encode())
    assert summed.row.exact == Decimal("123456789012345678901234.100000000000000000001")


def test_senml_base_values_and_relative_times() -> None:
    """Base time is added, times below 2^28 count from the record's time, a name without base is cut at its last separator."""
    base = NOW // 1000
    found = readings([
        {"bn": "urn:dev:mac:01:", "bt": base, "bu": "Cel", "n": "temp", "v": 20}, {"n": "temp", "t": -60, "v": 19},
        {"n": "state", "vs": "on"}, {"n": "door", "vb": True}, {"bn": ""}, {"bt": 0}, {"n": "line/m2/temp", "t": -5, "v": 1},
    ])  # fmt: skip
    assert [(f.device, f.event_ms, f.row.temp) for f in found] == [
        ("urn:dev:mac:01", NOW, 20.0), ("urn:dev:mac:01", NOW - 60_000, 19.0), ("line/m2", NOW - 5000, 1.0),
    ]  # fmt: skip
    assert (found[0].row.state, found[0].row.door) == ("on", True)
    assert [bool(f.event_id) for f in found] == [True, True, False]


def test_one_bad_device_of_a_pack() -> None:
    """The neighbours of a bad device are decided; the bad one is a fault that names it."""
    pack = [{"bn": "a:", "n": "temp", "v": 1}, {"bn": "b:", "n": "temp", "v": "hot"}, {"bn": "c:", "n": "rpm", "v": 1.5},
            {"bn": "", "n": "lost", "v": 1}, {"bn": "d:", "n": "temp", "v": 4}]  # fmt: skip
    found = readings(pack)
    assert [f.device if isinstance(f, Reading) else (f.reason, f.field) for f in found] == [
        "a", ("senml-record", "1.v"), ("invalid-field", "rpm"), ("missing-device", "3.n"), "d",
    ]  # fmt: skip
    assert "'b'" in found[1].detail
    array = readings([{"device": "a"}, 5, {"device": "b", "rpm": "x"}])
    assert [type(f) for f in array] == [Reading, Fault, Fault]


names = st.sampled_from(["temp", "rpm", "exact"])
devices = st.text("abcdefgh0123456789", min_size=1, max_size=8)


@given(st.lists(st.tuples(devices, names, st.integers(0, 10**6), st.integers(0, 3)), min_size=1, max_size=20), st.booleans())
def test_senml_resolves_to_what_was_packed(points: list[tuple[str, str, int, int]], named: bool) -> None:
    """However a pack spreads values over base fields and names, each device and time gets its values, and no other."""
    base, wanted, pack = NOW // 1000, dict[tuple[str, int], dict[str, int]](), []
    for device, name, value, second in points:
        at = wanted.setdefault((device, second), {})
        if name in at:
            continue
        at[name] = value
        head = {"bn": f"{device}:", "n": name} if named else {"bn": "", "n": f"{device}/{name}"}
        pack.append(head | {"bt": base - 1, "t": second + 1, "v": value})
    found = readings(pack)
    assert [(f.device, f.event_ms) for f in found] == [(d, (base + s) * 1000) for d, s in wanted]
    for element, values in zip(found, wanted.values(), strict=True):
        assert {k: v for k, v in element.row.model_dump().items() if v is not None} == values


def test_lying_clocks() -> None:
    """1970 and 2099 are named as such, or skipped by rule; a record without a broker time is not judged."""
    for moment in (86_400_000, 4_070_908_800_000):
        assert fault({"device": "a", "ts": moment}).reason == "event-time-implausible"
        lax = reading_topic("r", Machine, clock=Clock(on_violation="skip"))
        assert readings({"device": "a", "ts": moment}, spec=lax) == [Skipped("event-time-implausible")]
        untimed = decoder(SPEC)(Raw("t", json.dumps({"device": "a", "ts": moment}).encode()))
        assert isinstance(untimed, Decoded)
    edge = Clock(max_past_ms=1000, max_future_ms=10)
    strict = reading_topic("r", Machine, clock=edge)
    for gap, kind in ((-1000, Reading), (-1001, Fault), (10, Reading), (11, Fault)):
        result = decoder(strict)(record({"device": "a", "ts": NOW + gap}))
        assert isinstance(result.values[0] if isinstance(result, Decoded) else result, kind)


CLEAN = Clean(
    rename={"Air temp [K]": "temp", "speed": "rpm"}, defaults={"state": "idle"}, units={"temp": Unit(1, -273.15)},
    ranges={"temp": Range(-40, 80), "rpm": Range(0, 3000, "clamp"), "exact": Range(0, 1, "null")},
)  # fmt: skip


def test_cleaning_rules_act_and_are_named() -> None:
    """Rename, default, unit and range act in this order, computed exactly, and each is named."""
    spec = reading_topic("r", Machine, clean=CLEAN)
    result = decoder(spec)(record({"device": "a", "Air temp [K]": 298.1, "speed": 5000, "exact": 2, "state": None}))
    assert isinstance(result, Decoded)
    assert result.values[0].row == Machine(temp=24.95, rpm=3000, state="idle")  # type: ignore[union-attr]  # a reading
    assert sorted(result.cleaned) == [
        "default:state", "range:exact", "range:rpm", "rename:Air temp [K]", "rename:speed", "unit:temp",
    ]  # fmt: skip
    quiet = decoder(spec)(record({"device": "a", "rpm": 1, "state": "on"}))
    assert isinstance(quiet, Decoded)
    assert quiet.cleaned == ()
    bad = fault({"device": "a", "Air temp [K]": 500}, spec=spec)
    assert (bad.stage, bad.reason, bad.field) == ("clean", "out-of-range", "temp")


def test_cleaning_of_changes() -> None:
    """A range stands over a row change too, and only over the new row."""

    class Loan(BaseModel):
        id: int
        amount: Decimal

    spec = change_topic("l", Loan, key=("id",), clean=Clean(ranges={"amount": Range(1, 100)}))
    source = {"connector": "mysql"}
    ok = decoder(spec)(record({"op": "u", "before": {"id": 1, "amount": 0}, "after": {"id": 1, "amount": 5}, "source": source}))
    assert isinstance(ok, Decoded)
    assert isinstance(ok.values[0], Change)
    assert ok.values[0].row.amount == 5
    assert ok.values[0].before is None
    bad = fault({"op": "c", "before": None, "after": {"id": 1, "amount": "100.01"}, "source": source}, spec=spec)
    assert (bad.stage, bad.field) == ("clean", "amount")


def test_configurations_that_can_not_work() -> None:
    """A rule about a field that is not there, a hint that does not exist and a topic that is not read are refused at once."""
    for spec in (
        reading_topic("r", Machine, clean=Clean(units={"tmp": Unit()})), out_topic("o"),
        reading_topic("r", Machine, encoding=Encoding(temporals={"temp": "fortnights"})),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            decoder(spec)


class Order(BaseModel):
    """The data of an event."""

    total: Decimal


ORDERS = event_topic("orders", Order)
HEADERS = {"ce_specversion": b"1.0", "ce_id": b"42", "ce_source": b"/shop", "ce_type": b"order", "ce_subject": b"o-7",
           "ce_time": b"2026-11-22T00:45:30Z", "content-type": b"application/json"}  # fmt: skip
CONTEXT = {k[3:]: v.decode() for k, v in HEADERS.items() if k.startswith("ce_")}
WHEN = 1_795_308_330_000


def test_plain_events() -> None:
    """Id and time are those of the data; a null value is a tombstone."""
    (found,) = readings({"id": 9, "time": "2026-11-22T00:45:30Z", "total": "0.10"}, spec=ORDERS)
    assert found == Event(Order(total=Decimal("0.10")), WHEN, "9", "")
    assert decoder(ORDERS)(record(None)) == Control("tombstone")


def test_cloudevents_binary_and_structured() -> None:
    """Both modes give the same event: its own time, subject, and an id unique by source; data may be packed as base64."""
    wanted = Event(Order(total=Decimal("0.10")), WHEN, "/shop#42", "o-7")
    data = {"total": 0.10}
    assert readings(data, spec=ORDERS, headers=HEADERS) == [wanted]
    structured = {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    assert readings(CONTEXT | {"data": data}, spec=ORDERS, headers=structured) == [wanted]
    assert readings(CONTEXT | {"data": data}, spec=ORDERS) == [wanted]
    packed = base64.b64encode(json.dumps(data).encode()).decode()
    assert readings(CONTEXT | {"data_base64": packed}, spec=ORDERS) == [wanted]
    assert decoder(ORDERS)(record(CONTEXT)) == Control("tombstone")
    assert decoder(ORDERS)(record(None, None, HEADERS)) == Control("tombstone")


def test_cloudevents_around_readings_and_changes() -> None:
    """A reading takes device and time of the event where the data has none; Debezium's converter spreads its envelope."""
    (found,) = readings({"temp": 1}, headers=HEADERS)
    assert (found.device, found.event_ms, found.event_id) == ("o-7", WHEN, "o-7//shop#42")

    class Bob(BaseModel):
        pk: int
        name: str

    body = {
        "id": "name:test_server;lsn:29274832;txId:565", "source": "/debezium/postgresql/test_server", "specversion": "1.0",
        "type": "io.debezium.postgresql.datachangeevent", "time": "2020-01-13T13:55:39.738Z",
        "datacontenttype": "application/json", "iodebeziumop": "r", "iodebeziumconnector": "postgresql",
        "iodebeziumname": "test_server", "iodebeziumtsms": "1578923739738", "iodebeziumsnapshot": "true",
        "iodebeziumdb": "postgres", "iodebeziumschema": "s1", "iodebeziumtable": "a", "iodebeziumlsn": "29274832",
        "data": {"before": None, "after": {"pk": 1, "name": "Bob"}},
    }  # fmt: skip
    (change,) = readings(body, spec=change_topic("b", Bob, key=("pk",)))
    assert (change.op, change.row, change.key, change.event_ms) == ("r", Bob(pk=1, name="Bob"), {"pk": 1}, 1578923739738)
    assert (change.source.order, change.source.snapshot, change.source.table) == ((29274832, 29274832), True, "a")


@pytest.mark.parametrize(("body", "headers", "reason"), [
    ({}, HEADERS | {"content-type": b"application/avro"}, "unsupported-content-type"),
    ({}, HEADERS | {"ce_specversion": b"2.0"}, "cloudevents-version"),
    ({}, HEADERS | {"ce_id": b""}, "cloudevents-attribute"),
    ({}, HEADERS | {"ce_x": b"x" * 9000}, "cloudevents-attribute"),
    ({}, HEADERS | {"ce_time": b"soon"}, "invalid-time"),
    ([], {"content-type": b"application/cloudevents-batch+json"}, "cloudevents-batch"),
    ({}, {"content-type": b"application/cloudevents+avro"}, "unsupported-content-type"),
    (CONTEXT | {"data_base64": "%"}, {}, "cloudevents-attribute"),
])  # fmt: skip
def test_cloudevents_that_are_wrong(body: Any, headers: dict[str, bytes], reason: str) -> None:
    """Each mistake of an event's context is a fault with its code."""
    assert fault(body, spec=ORDERS, headers=headers).reason == reason
