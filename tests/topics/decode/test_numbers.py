"""No number that a record names is expanded past what can be computed with and printed, whatever asks for it.

The bounds are told by counting digits, never by a clock. The hostile numbers here are large enough to be seen if one comes
through and small enough to be computed with where it does.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal, localcontext
from enum import IntEnum
from typing import Any, Literal, NamedTuple, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ByteSize, ConfigDict, NaiveDatetime, create_model

from schemas.change import Change
from schemas.dead_letter import Fault
from topics.decode import Decoded, decoder
from topics.decode.columns import Source
from topics.decode.connect_types import TEMPORAL, Meaning, unscaled
from topics.decode.faults import Bad
from topics.decode.numbers import MAX_DIGITS, check_decimal
from topics.decode.rows import RowPlan
from topics.decode.times import NUMBER, epoch_us
from topics.record import Raw
from topics.spec import Clean, Clock, Encoding, Unit, change_topic, event_topic, reading_topic

HUGE = 400_000


class Level(IntEnum):
    """Pydantic makes an integer of what comes before it looks it up."""

    LOW = 1


class Inner(BaseModel):
    """A model inside a row."""

    n: int | None = None
    d: Decimal | None = None


@dataclasses.dataclass
class Plain:
    """A dataclass inside a row."""

    n: int = 0
    d: Decimal = Decimal(0)


class Pair(NamedTuple):
    """A tuple with names inside a row."""

    n: int
    d: Decimal


FIELDS: list[Any] = [
    int, float, Decimal, str, bool, bytes, Any, object, datetime, NaiveDatetime, date, time, timedelta, int | str, Decimal | str,
    datetime | str, float | bool, list[int], list[Decimal], set[Decimal], deque[int], tuple[int, Decimal], dict[str, int],
    dict[str, Decimal], dict[Decimal, Decimal], dict[str, Any], list[Decimal] | dict[str, Decimal], Inner, list[Inner], Plain,
    Pair, Level, ByteSize, Literal[1, 2], Literal["a"] | Decimal,
]  # fmt: skip
SCALES = (0, 2, 64, 65, MAX_DIGITS - 1, MAX_DIGITS, MAX_DIGITS + 1, 10**9, 10**18)
MEANINGS = [
    Meaning(), Meaning("struct_decimal"), Meaning("bytes"), *(Meaning(kind) for kind in sorted(TEMPORAL)),
    *(Meaning("decimal", sign * scale) for scale in SCALES for sign in ((1, -1) if scale else (1,))),
]  # fmt: skip


def b64(number: int) -> str:
    """Connect's bytes of an unscaled value."""
    return base64.b64encode(number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)).decode()


LONG = 10**MAX_DIGITS - 1
"""The largest whole number that the parser lets through."""
NUMBERS: list[Any] = [
    *(Decimal(f"{sign}1e{exponent}") for sign in "+-" for exponent in (HUGE, -HUGE, MAX_DIGITS, -MAX_DIGITS - 1, 28, 400)),
    Decimal(f"0e{HUGE}"), Decimal("1." + "7" * 9000), Decimal(LONG) + Decimal("0.5"), LONG, -LONG,
]  # fmt: skip
TEXTS = [str(number) for number in NUMBERS if isinstance(number, Decimal)] + [
    f"1e{10**19}", "9" * MAX_DIGITS, b64(LONG), b64(-LONG), b64(LONG * 10), b64(1 << 40_000), b64(7), "1234",
]  # fmt: skip
STRUCTS = [{"scale": sign * scale, "value": b64(value)} for scale in SCALES for sign in (1, -1) for value in (1, -LONG)]

HARMLESS: list[Any] = [
    1, "7", True, "a", [7], ["7", "7.5"], {"7": "7.5"}, {"n": 1, "d": "2.5"}, [{"n": 1}], "2026-11-23", "12:00:00", "P1D",
    "2026-11-23T12:00:00Z",
]  # fmt: skip


def wires() -> list[Any]:
    """Each hostile value alone, and inside whatever a column may hold."""
    alone = [*NUMBERS, *TEXTS, *STRUCTS]
    inside: list[Any] = []
    for one in (NUMBERS[0], NUMBERS[2], TEXTS[0], TEXTS[2], STRUCTS[-1]):
        inside += [[one], [1, one], {"n": one}, {"n": 1, "d": one}, [{"d": one}], {"a": {"b": [one]}}]
    inside += [{TEXTS[0]: 1}, json.dumps([TEXTS[0]]), f"[1e{HUGE}]", f'{{"n": 1e{HUGE}}}', f'{{"d": "1e{HUGE}"}}']
    return alone + inside + HARMLESS


def largest(value: Any) -> int:
    """The digits of the longest number in a value when it is written out, or the length of a text that was made of one."""
    if isinstance(value, bool) or value is None:
        return 0
    if isinstance(value, int):
        return int(value.bit_length() * 0.30103) + 1
    if isinstance(value, Decimal):
        return max(abs(value.adjusted()), len(value.as_tuple().digits))
    if isinstance(value, BaseModel):
        return max((largest(inner) for _, inner in value), default=0)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return max((largest(getattr(value, each.name)) for each in dataclasses.fields(value)), default=0)
    if isinstance(value, Mapping):
        return max((max(largest(k), largest(v)) for k, v in value.items()), default=0)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return max(map(largest, value), default=0)
    return 0


def spec_of(annotation: Any, **rest: Any) -> Any:
    """A topic of changes with one column `x`, which is not required."""
    return change_topic("t", create_model("Row", id=(int, 0), x=(annotation | None, None)), key=("id",), **rest)


@pytest.mark.parametrize("annotation", FIELDS, ids=str)
def test_no_meaning_lets_a_hostile_number_through(annotation: Any) -> None:
    """Every declared meaning, with every scale a wire's schema can name, for every type of field: a bounded value or a Bad."""
    good = 0
    sources: tuple[Source, ...] = ("change", "telemetry")
    for source in sources:
        for meaning in MEANINGS:
            plan = RowPlan(spec_of(annotation), source, {"x": meaning})
            for wire in wires():
                try:
                    row = plan.build({"id": 1, "x": wire}, [])
                except Bad:
                    continue
                good += 1
                found = row.x  # type: ignore[attr-defined]  # made above
                assert largest(found) <= MAX_DIGITS + 10, (meaning, str(wire)[:60])
                if isinstance(found, str) and found != wire:
                    assert len(found) <= 2 * MAX_DIGITS + 20, (meaning, str(wire)[:60])
                if isinstance(found, int):
                    assert str(found), "what is whole can be printed"
    assert good, "a harmless value of the type comes through"


def decoded(spec: Any, value: str | bytes, **rest: Any) -> Any:
    """What a record comes to: no fault of the safety net, and nothing past the bounds in whatever there is."""
    found = decoder(spec)(Raw("t", value.encode() if isinstance(value, str) else value, timestamp=1, **rest))
    for each in found.values if isinstance(found, Decoded) else (found,):
        assert getattr(each, "reason", "") != "decoder-error", value[:120]
        assert largest(each) <= MAX_DIGITS + 10, value[:120]
    return found


def change(after: str, schema: Any = None, source: str = "{}") -> str:
    """A change as Debezium writes it."""
    payload = f'{{"op":"c","before":null,"after":{after},"source":{source}}}'
    return payload if schema is None else f'{{"schema":{json.dumps(schema)},"payload":{payload}}}'


@pytest.mark.parametrize("scale", ["0", "-4300", "4301", str(10**9), "-" + str(10**18), "9" * 5000, 7, 1.5, None, "x"])
@pytest.mark.parametrize("wire", [
    f"1e{HUGE}", f'"{b64(LONG)}"', f'"{b64(1)}"', str(LONG), f'{{"scale":-4300,"value":"{b64(LONG)}"}}',
])  # fmt: skip
@pytest.mark.parametrize("annotation", [int, Decimal, str, float, Any], ids=str)
def test_a_schema_on_the_wire_names_no_bound(scale: Any, wire: str, annotation: Any) -> None:
    """A record brings its own schema, so the scale in it is as hostile as the value, and so is the key's."""
    decimal = {"name": "org.apache.kafka.connect.data.Decimal", "type": "bytes", "parameters": {"scale": scale}}
    row = {"type": "struct", "fields": [{"field": "id", "type": "int64"}, {"field": "x", **decimal}]}
    schema = {"type": "struct", "fields": [{**row, "field": "after"}]}
    decoded(spec_of(annotation), change(f'{{"id":1,"x":{wire}}}', schema))
    key = json.dumps({"schema": {"type": "struct", "fields": [{"field": "x", **decimal}]}, "payload": None})
    decoded(spec_of(annotation), change('{"id":1}'), key=(key[:-5] + f'{{"x":{wire}}}}}').encode())


@pytest.mark.parametrize("annotation", [int, Decimal, str, float, Any], ids=str)
def test_a_hint_names_no_bound(annotation: Any) -> None:
    """A bare number in a column that a hint calls a decimal: such a kilobyte has stopped a worker for a minute."""
    found = decoded(spec_of(annotation, encoding=Encoding(decimals={"x": 2})), change(f'{{"id":1,"x":1e{HUGE}}}'))
    assert isinstance(found, Fault)
    assert (found.reason, found.field) == ("number-too-large", "x")


@pytest.mark.parametrize("wire", [f"1e{HUGE}", f"[1e{HUGE}]", f'{{"a":1e{HUGE}}}', f'"1e{HUGE}"', str(LONG)])
def test_keys_and_columns_that_no_field_declares(wire: str) -> None:
    """A key is a value too, declared or not, and so is a column that an open row takes along."""

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        id: int = 0

    for spec in (change_topic("t", Open, key=("id",)), change_topic("t", Open, key=("other",)), event_topic("t", Open)):
        for column in ("id", "other"):
            decoded(spec, change("{}"), key=f'{{"{column}":{wire}}}'.encode())
            decoded(spec, change(f'{{"{column}":{wire}}}'))
            decoded(spec, f'{{"{column}":{wire}}}')
        decoded(spec, change("{}"), key=wire.encode())
        decoded(spec, change("{}"), headers=[("__debezium.oldkey", f'{{"id":{wire}}}'.encode())])


def test_a_document_of_mongodb() -> None:
    """Decimal128 reaches 1e6144, and a document's text can name any number."""
    source = '{"connector":"mongodb","ts_ms":1,"ord":1}'
    spec = spec_of(Decimal)
    for wire in (f'{{"$numberDecimal":"1e{HUGE}"}}', '{"$numberDecimal":"1e4301"}', f'{{"$numberDouble":1e{HUGE}}}', f"1e{HUGE}",
                 f'{{"$numberLong":1e{HUGE}}}', f'{{"$date":1e{HUGE}}}', f'{{"$timestamp":{{"t":{LONG}}}}}'):  # fmt: skip
        found = decoded(spec, change(json.dumps(f'{{"x":{wire}}}'), source=source))
        assert isinstance(found, Fault), wire
        decoded(spec, change('"{}"', source=source), key=json.dumps({"id": wire}).encode())


def test_a_source_block_names_no_time_that_can_not_be_kept() -> None:
    """A source time past the year 9999 is a fault: what stores it has 64 bits for it. One that is no time is not known."""
    plausible = (f"1e{HUGE}", f'"{LONG}"', "null", "1700000000000", "-1")
    implausible = (str(LONG), str(1 << 63), "-1e20", "253402300800000", '"253402300800000"')
    for wire in plausible + implausible:
        for where, after in (('"connector":"postgresql","lsn":7', '{"id":1}'), ('"connector":"mongodb","ord":1', '"{}"')):
            found = decoded(spec_of(int), change(after, source=f'{{{where},"ts_ms":{wire}}}'))
            if wire in plausible:
                assert isinstance(found, Decoded), wire
            else:
                assert isinstance(found, Fault), wire
                assert found.reason == "event-time-implausible"
        flat = decoded(spec_of(int), f'{{"id":1,"__op":"u","__lsn":7,"__source_ts_ms":{wire}}}')
        assert isinstance(flat, Decoded) == (wire in plausible)
        decoded(spec_of(int), change('{"id":1}', source=f'{{"connector":"mysql","file":"b.1","pos":{wire},"row":{wire}}}'))


class Machine(BaseModel):
    """What a machine measures."""

    temp: Decimal | None = None
    rpm: int | None = None
    rate: float | None = None


UNITS = [Encoding(), *(Encoding(timestamps=unit) for unit in get_args(Literal["s", "ms", "us", "ns", "iso"]))]
READINGS = [reading_topic("t", Machine, encoding=unit, clock=clock) for unit in UNITS for clock in (None, Clock())]


@pytest.mark.parametrize("number", [
    f"1e{HUGE}", f"-1e{HUGE}", f"1e-{HUGE}", "1e4299", "1e-4299", str(LONG), f"-{LONG}", "123456789012345678901234567890.5",
    "1e29", "123456789012345678901234567.25", "-99999999999999999999999999999.5", "0.1234567890123456789012345678901234567890",
])  # fmt: skip
@pytest.mark.parametrize("quote", ["", '"'])
def test_telemetry(number: str, quote: str) -> None:
    """Values, times, devices and ids of readings in each shape, for each unit of time: never a defect of the decoder."""
    n = f"{quote}{number}{quote}"
    shapes = [f'{{"device":"a","{name}":{n}}}' for name in ("ts", "temp", "rpm", "rate", "event_id", "device_id")]
    shapes += [f'{{"device":"a","ts":{n},"temp":{n},"rpm":{n}}}', f'{{"device":{n},"temp":1}}', f'[{{"device":"a","ts":{n}}}]']
    shapes += [f'{{"device":"a","metrics":[{{"name":"rpm","value":{n}}}]}}', f'{{"device":"a","values":{{"temp":{n}}}}}']
    shapes += [f'[{{"bn":"d:","n":"{name}","{label}":{n},"v":1}}]' for name in ("rpm", "temp") for label in ("bt", "t", "bv")]
    shapes += [f'[{{"bn":"d:","n":"rpm","{label}":{n}}}]' for label in ("v", "s", "bver")]
    shapes += [f'[{{"bn":"d:","n":"{name}","bt":{n},"t":{n},"bv":{n},"v":{n}}}]' for name in ("rpm", "temp", "rate")]
    for spec in READINGS:
        for shape in shapes:
            decoded(spec, shape, key=number.encode())


@pytest.mark.parametrize("n", [f"1e{HUGE}", str(LONG), f'"{LONG}"', f'"1e{HUGE}"', "1.5"])
def test_cloud_events(n: str) -> None:
    """Attributes of an event around anything, and Debezium's spread over them."""
    head = '"specversion":"1.0","id":"1","source":"s","type":"t"'
    for name in ("time", "subject", "datacontenttype", "data_base64", "iodebeziumop", "iodebeziumlsn"):
        for spec in (event_topic("t", Machine), READINGS[0], spec_of(int)):
            decoded(spec, f'{{{head},"{name}":{n},"data":{{"rpm":1,"device":"a"}}}}')
            decoded(spec, f'{{{head},"data":{{"rpm":{n},"device":"a"}}}}')
    for spec in (event_topic("t", Machine), READINGS[0]):
        headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t"), ("ce_time", n.encode())]
        decoded(spec, '{"device":"a","rpm":1}', headers=headers)
    attributes = f'"iodebeziumop":"c","iodebeziumconnector":"postgresql","iodebeziumlsn":{n},"iodebeziumtsms":{n}'
    decoded(spec_of(int), f'{{{head},{attributes},"data":{{"before":null,"after":{{"id":1}}}}}}')


def test_units_are_computed_within_the_bounds() -> None:
    """A factor can lift a number past them, and a float past its range: the record is bad, the field is not infinite."""
    clean = Clean(units={"temp": Unit(1e300), "rpm": Unit(1e300), "rate": Unit(1e300)})
    decode = decoder(reading_topic("t", Machine, clean=clean, clock=None))
    for name, value in (("temp", "1e4200"), ("rpm", "1" + "0" * 4200), ("rate", "1e200"), ("rate", "-1e200")):
        found = decode(Raw("t", f'{{"device":"a","{name}":{value}}}'.encode()))
        assert isinstance(found, Fault), name
        assert (found.reason, found.field, found.stage) == ("number-too-large", name, "clean")


@settings(deadline=None)
@given(st.integers(-(1 << 14_500), 1 << 14_500), st.integers(-5000, 5000))
def test_a_packed_decimal_is_exact_or_refused(number: int, scale: int) -> None:
    """Bytes and scale of any size: the same bounds as for a number in JSON, whichever way it is written."""
    text = b64(number)
    exact = Decimal(number).scaleb(-scale, Context(prec=20_000, Emax=99_999, Emin=-99_999))
    try:
        check_decimal(exact)
    except Bad:
        with pytest.raises(Bad):
            unscaled(text, scale, "x")
    else:
        assert unscaled(text, scale, "x").compare_total(exact) == 0


@settings(deadline=None)
@given(st.from_regex(r"[+0-9][0-9eE+]*", fullmatch=True) | st.from_regex(r"([+0-9][0-9]{3}){1,4}", fullmatch=True))
def test_base64_that_is_a_plain_number_is_negative(text: str) -> None:
    """Without schema and hint a plain number is what it says: read as base64 it is never a column of amounts."""
    found = decoded(spec_of(Decimal), change(f'{{"id":1,"x":"{text}"}}'))
    if not NUMBER.fullmatch(text):
        assert isinstance(found, Fault)
    elif isinstance(found, Decoded):
        (row,) = [each.after for each in found.values if isinstance(each, Change) and each.after]
        assert row.x == Decimal(text)
        try:
            assert unscaled(text, 0, "x") < 0
        except Bad:
            pass  # no base64 at all


@settings(deadline=None)
@given(st.integers(0, 10**30))
def test_base64_of_an_amount_is_never_taken_for_a_number(amount: int) -> None:
    """Where nothing gives its scale, a packed decimal of a column of amounts is a fault that names the hint to set."""
    found = decoded(spec_of(Decimal), change(f'{{"id":1,"x":"{b64(amount)}"}}'))
    assert isinstance(found, Fault)
    assert found.reason == "decimal-scale-unknown"
    assert "encoding.decimals" in found.detail


@settings(deadline=None)
@given(
    st.decimals(allow_nan=False, allow_infinity=False) | st.integers(-(10**40), 10**40),
    st.sampled_from(["auto", "s", "ms", "us", "ns"]), st.integers(1, 60),
)  # fmt: skip
def test_times_do_not_depend_on_the_threads_context(value: Any, unit: str, precision: int) -> None:
    """However many digits an agent's code has asked of its own arithmetic, a time is the same or the same Bad."""

    def attempt() -> Any:
        try:
            return epoch_us(value, unit, "ts")
        except Bad as bad:
            return bad.fault.reason

    with localcontext(prec=10_000, Emax=99_999, Emin=-99_999):
        wanted = attempt()
    with localcontext(prec=precision):
        assert attempt() == wanted
