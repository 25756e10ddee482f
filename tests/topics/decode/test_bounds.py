"""Decoders are total, bounded and exact: whatever the bytes, an answer comes, soon, and no digit is lost."""

from __future__ import annotations

import base64
import json
import time
from decimal import Decimal
from typing import Any

import jiter
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from schemas.change import Change
from schemas.dead_letter import Fault
from tests.support.captures import captured, record
from topics.decode import Control, Decoded, Skipped, decoder, json_text
from topics.decode.json_text import depth, load
from topics.record import Raw
from topics.spec import Clean, Encoding, Range, Unit, change_topic, event_topic, reading_topic


class Wide(BaseModel):
    """A field of every kind, none of them required."""

    id: int | None = None
    amount: Decimal | None = None
    rate: float | None = None
    big: str | None = None
    tags: list[float] | None = None
    doc: dict[str, Any] | None = None
    anything: Any = None


CLEAN = Clean(units={"rate": Unit(2, 1)}, ranges={"amount": Range(0, 10, "null")})
DECODERS = [
    decoder(change_topic("c", Wide, key=("id",), clean=CLEAN, encoding=Encoding(decimals={"amount": 2}))),
    decoder(reading_topic("r", Wide, clean=CLEAN)),
    decoder(event_topic("e", Wide, clean=CLEAN)),
]
CAPTURED = [raw for name in ("plain", "schema", "unwrap") for raw in captured(name) if raw.value is not None]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from([
            "op", "before", "after", "source", "id", "amount", "rate", "schema", "payload", "fields", "field", "ts", "device",
            "metrics", "name", "value", "bn", "bt", "n", "v", "t", "specversion", "type", "data", "connector", "lsn",
            "sequence", "__op", "__deleted", "tags", "doc", "anything", "ts_ms", "file", "pos", "scale", "$date", "$oid",
        ]),
        inner, max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip
headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_specversion", "ce_source", "ce_type", "ce_time", "content-type", "__op"])
        | st.just("__debezium.oldkey"),
        st.sampled_from([b"1.0", b"", b"\xff", b"application/json", b"application/cloudevents", b'{"id":1}', b"c"])
        | st.binary(max_size=20),
    ),
    max_size=6,
)  # fmt: skip


def total(raw: Raw) -> None:
    """Every decoder answers with one of its three results, and none of them is its safety net."""
    for decode in DECODERS:
        result = decode(raw)
        assert isinstance(result, (Decoded, Control, Fault))
        for found in result.values if isinstance(result, Decoded) else [result]:
            assert not isinstance(found, Fault) or found.reason != "decoder-error", found
            assert isinstance(found, Skipped) or found is not None


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.none() | st.binary(max_size=40), headers)
def test_any_bytes(value: bytes, key: bytes | None, extra: list[tuple[str, bytes]]) -> None:
    """Arbitrary bytes as value, key and headers never raise."""
    total(Raw("t", value, key, extra, timestamp=1))


@settings(deadline=None, max_examples=400)
@given(json_values, json_values, headers, st.sampled_from(["t", "__debezium-heartbeat.x"]))
def test_any_json(value: Any, key: Any, extra: list[tuple[str, bytes]], topic: str) -> None:
    """Arbitrary JSON made of the words that decoders look for never raises."""
    total(Raw(topic, json.dumps(value).encode(), json.dumps(key).encode(), extra, timestamp=1))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(CAPTURED), st.data())
def test_mutated_captures(raw: Raw, data: st.DataObject) -> None:
    """Captured records that were cut short, or had a few bytes changed, never raise."""
    value = bytearray(raw.value or b"")
    if data.draw(st.booleans()):
        del value[data.draw(st.integers(0, len(value))) :]
    for _ in range(data.draw(st.integers(0, 4)) if value else 0):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.sampled_from(b'{}[]",:\\0e-9ntu\xff\x00'))
    total(Raw(raw.topic, bytes(value), raw.key, timestamp=raw.timestamp))


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=6) | st.integers(-(10**60), 10**60).map(Decimal), st.integers())
def test_numbers_survive(amount: Decimal, big: int) -> None:
    """Decimals and integers of any size come out of a change as they went into it, in each of Debezium's encodings."""
    scale = max(0, -int(amount.as_tuple().exponent))
    unscaled = int(amount.scaleb(scale, json_text_context()))
    packed = base64.b64encode(unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)).decode()

    class Row(BaseModel):
        id: int
        amount: Decimal

    def out(wire: str, **encoding: Any) -> tuple[int, Decimal]:
        spec = change_topic("n", Row, key=("id",), encoding=Encoding(**encoding))
        text = '{"op":"c","before":null,"source":{},"after":{"id":%d,"amount":%s}}' % (big, wire)  # noqa: UP031 - braces all over
        result = decoder(spec)(record(text.encode(), {"id": big}))
        assert isinstance(result, Decoded), result
        (change,) = result.values
        assert isinstance(change, Change)
        assert change.key == {"id": big}
        return change.row.id, change.row.amount

    wanted = (big, amount)
    assert out(format(amount, "f")) == wanted
    assert out(json.dumps(format(amount, "f"))) == wanted
    assert out(json.dumps({"scale": scale, "value": packed})) == wanted
    assert out(json.dumps(packed), decimals={"amount": scale}) == wanted


def json_text_context() -> Any:
    """The wide context in which decimals are scaled."""
    from topics.decode.numbers import EXACT

    return EXACT


@pytest.mark.parametrize(("raw", "reason"), [
    (b'{"device":"a","device":"b"}', "duplicate-key"),
    (b'{"device":"\xff"}', "invalid-utf8"),
    (b'{"device":"a"} {}', "trailing-data"),
    (b'{"device":Infinity}', "non-finite-number"),
    (b'{"device":', "invalid-json"),
    (b"", "invalid-json"),
    (b'{"device":"\\ud800"}', "invalid-json"),
    (b'\x00\x00\x00\x00\x07{"device":"a"}', "schema-registry-framing"),
    (b'{"device":"a","x":' + b"9" * 5000 + b"}", "number-too-large"),
])  # fmt: skip
def test_json_that_is_wrong(raw: bytes, reason: str) -> None:
    """Text on which two readers could disagree is refused with a reason; framing says what to configure."""
    found = decoder(reading_topic("r", Wide))(record(raw))
    assert isinstance(found, Fault)
    assert found.reason == reason
    assert reason != "schema-registry-framing" or "value.converter" in found.detail


def test_a_byte_order_mark_is_ignored() -> None:
    """Some publishers begin with one, and RFC 8259 lets a reader ignore it."""
    assert isinstance(decoder(reading_topic("r", Wide))(record(b'\xef\xbb\xbf{"device":"a"}')), Decoded)


@pytest.mark.parametrize("marks", [2, 3, 5000, 330_000])
@pytest.mark.parametrize("kind", [reading_topic("r", Wide), change_topic("r", Wide, key=("id",))], ids=lambda spec: spec.kind)
def test_only_one_byte_order_mark_is_ignored(kind: Any, marks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of nothing but marks is parsed twice and refused; it neither recurses nor is copied once for each mark."""
    calls: list[int] = []

    class Spy:
        @staticmethod
        def from_json(raw: bytes, **options: Any) -> Any:
            calls.append(len(raw))
            return jiter.from_json(raw, **options)

    monkeypatch.setattr(json_text, "jiter", Spy)
    found = decoder(kind)(record(b"\xef\xbb\xbf" * marks + b'{"device":"a","op":"c","after":{}}'))
    assert isinstance(found, Fault)
    assert found.reason == "invalid-json"
    assert len(calls) == 3, "with the mark, without it, and once more to tell the reason"


def test_huge_and_deep_are_refused_without_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its size or depth a record never reaches the parser; brackets inside texts do not count."""
    calls: list[int] = []

    class Spy:
        @staticmethod
        def from_json(raw: bytes, **options: Any) -> Any:
            calls.append(len(raw))
            return jiter.from_json(raw, **options)

    monkeypatch.setattr(json_text, "jiter", Spy)
    decode = decoder(reading_topic("r", Wide, encoding=Encoding(max_bytes=1000, max_depth=5)))
    bad = (b'"' + b"x" * 1000 + b'"', b"[" * 6 + b"]" * 6, b'{"a":' * 6 + b"1" + b"}" * 6, b"[" * 900)
    faults = [decode(record(raw)) for raw in bad]
    assert [f.reason for f in faults if isinstance(f, Fault)] == ["too-large", "too-deep", "too-deep", "too-deep"]
    schema = b'{"schema":{"type":"struct"},"payload":' + b"[" * 6 + b"]" * 6 + b"}"
    deep = decoder(change_topic("c", Wide, key=("id",), encoding=Encoding(max_depth=5)))(record(schema))
    assert isinstance(deep, Fault)
    assert deep.reason == "too-deep"
    assert calls == [len(b'{"schema":{"type":"struct"}}')]
    assert isinstance(decode(record({"device": "a", "big": "[[[[[[{{{{{{"})), Decoded)
    assert isinstance(decode(record({"device": "a", "tags": [1], "doc": {"a": {"b": [2]}}})), Decoded)


@given(json_values)
def test_depth_is_exact(value: Any) -> None:
    """The bracket count agrees with the depth of what was written."""

    def deep(inner: Any) -> int:
        if isinstance(inner, dict):
            return 1 + max(map(deep, inner.values()), default=0)
        return 1 + max(map(deep, inner), default=0) if isinstance(inner, list) else 0

    assert depth(json.dumps(value).encode(), 1000) == deep(value)


@pytest.mark.parametrize("body", [
    '"amount":1e999999999', '"rate":1e999999999', '"id":1e999999999', '"id":0e999999999', '"doc":{"x":[1e999999999]}',
    '"id":"1e9999999999999999999999"', '"ts":"1e9999999999999999999999"', '"anything":1e999999999', '"tags":[1e999999999]',
    '"amount":"1e999999999"', '"id":"1e999999999"', '"ts":1e999999999',
])  # fmt: skip
def test_numbers_that_explode_are_faults(body: str) -> None:
    """A dozen bytes can not make a decoder compute for minutes: exponents are bounded wherever a number may be."""
    started = time.perf_counter()
    found = decoder(reading_topic("r", Wide))(record(b'{"device":"a",%s}' % body.encode()))
    assert time.perf_counter() - started < 1
    assert isinstance(found, Fault), found
    assert found.reason in ("number-too-large", "invalid-field", "invalid-time")


def test_booleans_inside_lists_are_no_numbers() -> None:
    """The rule that true is no number holds for elements too."""
    found = decoder(reading_topic("r", Wide))(record({"device": "a", "tags": [1, True]}))
    assert isinstance(found, Fault)
    assert found.field == "tags"


def test_a_raising_validator_costs_one_record() -> None:
    """What a row's own validator raises is a fault of the record, whatever its type."""

    class Moody(BaseModel):
        id: int

        @field_validator("id")
        @classmethod
        def check(cls, value: int) -> int:
            if value == 1:
                raise ZeroDivisionError
            if value == 2:
                raise ValueError("no")
            return value

    decode = decoder(event_topic("e", Moody))
    found = [decode(record({"id": n})) for n in (1, 2, 3)]
    assert [f.reason if isinstance(f, Fault) else "ok" for f in found] == ["invalid-row", "invalid-field", "ok"]


def test_schemas_met_are_bounded_and_exact() -> None:
    """A producer that changes its schema all the time fills no memory, and each record is read by its own schema."""
    spec = change_topic("c", Wide, key=("id",))
    decode = decoder(spec)
    for scale in list(range(200)) * 2:
        logical = {"name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": str(scale)}}
        field = {"type": "bytes", "field": "amount"} | logical
        body = {"schema": {"type": "struct", "fields": [{"type": "struct", "field": "after", "fields": [field]}]},
                "payload": {"op": "c", "source": {}, "after": {"amount": "BQ=="}}}  # fmt: skip
        result = decode(record(json.dumps(body, separators=(",", ":")).encode()))
        assert isinstance(result, Decoded)
        assert isinstance(result.values[0], Change)
        assert result.values[0].row.amount == Decimal(5).scaleb(-scale)


@pytest.mark.parametrize("raw", [
    b'{"schema":{"a":1},"payload":{"x":1},"more":2}',
    b'{"schema":{"a":",\\"payload\\":"},"payload":{"x":1}}',
    b'{"schema":{"a":1,"payload":{"x":1}},"payload":{"x":1}}',
    b'{"schema":{"a":1},"payload":{"x":1}}}',
    b'{"schema":{"a":1},"schema":{"b":1},"payload":{"x":1}}',
    b'{"schema":{"a":1},"payload":{"x":1},"payload":{"x":1}}',
    b'{"schema":{"a":1},"payload":1,"payload":{"x":1}}',
    b'{"schema":{"a":1},"payload":}',
    b'{"schema":{"a":1},"payload":null}',
    b'{"schema":{"a":1},"payload":\xef\xbb\xbf{"x":1}}',
    b'\xef\xbb\xbf{"schema":{"a":1},"payload":{"x":1}}',
])  # fmt: skip
def test_the_short_way_through_a_schema_is_exact(raw: bytes) -> None:
    """Splitting the text at its payload gives what parsing the whole gives, for texts made to mislead it."""
    from topics.decode.envelopes import Opener
    from topics.decode.faults import Bad

    def attempt(read: Any) -> Any:
        try:
            return read()
        except Bad as bad:
            return bad.fault.reason

    def whole() -> Any:
        value = load(raw, 1000, 32)
        return value["payload"] if value.keys() == {"schema", "payload"} else value

    opener: Opener[None] = Opener(1000, 32, lambda schema: None, "value")
    for _ in range(2):
        assert attempt(lambda: opener.open(raw)[0]) == attempt(whole)
