"""What Kafka Connect and Debezium mean by a column's encoding, and its exact value.

The meaning comes from the schema on the wire, else from the topic's per-column hints, else from the type of the row's field
(topics/decode/columns.py). Nothing is guessed where two meanings are plausible: that is a Fault that says which hint to set.

One reading is kept although another is possible. Where neither a schema nor a hint speaks of a column, text that is a plain
number is that number: `decimal.handling.mode=string` writes "1234", and a hint for it would have to be set for every such column.
As base64 it would be a decimal as well, but only ever a negative one, because digits and "+" are the base64 characters that set
the first bit. So a column of amounts is never misread, and in any other nearly every value is no number and faults with
`decimal-scale-unknown`, which names the hint to set.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from schemas.errors import ConfigError
from topics.decode.faults import Bad, short
from topics.decode.numbers import EXACT, MAX_DIGITS, check_decimal
from topics.decode.times import at, checked_us, epoch_us
from topics.spec import Encoding

_MAX_BYTES = 1786
"""An unscaled value of more bytes has more than MAX_DIGITS digits."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a column's wire form stands for. `scale` is a decimal's; `placeholder` what a delete without a row image shows."""

    kind: str = ""
    scale: int = 0
    placeholder: tuple[Any, ...] = ()


TEMPORAL = {
    "date", "millis", "micros", "nanos", "time_millis", "time_micros", "time_nanos",
    "span_millis", "span_micros", "span_nanos",
}  # fmt: skip

_LOGICAL = {
    "org.apache.kafka.connect.data.Decimal": "decimal",
    "io.debezium.data.VariableScaleDecimal": "struct_decimal",
    "org.apache.kafka.connect.data.Date": "date",
    "org.apache.kafka.connect.data.Time": "time_millis",
    "org.apache.kafka.connect.data.Timestamp": "millis",
    "io.debezium.time.Date": "date",
    "io.debezium.time.Time": "time_millis",
    "io.debezium.time.MicroTime": "time_micros",
    "io.debezium.time.NanoTime": "time_nanos",
    "io.debezium.time.Timestamp": "millis",
    "io.debezium.time.MicroTimestamp": "micros",
    "io.debezium.time.NanoTimestamp": "nanos",
    "io.debezium.time.MicroDuration": "span_micros",
    "io.debezium.time.NanoDuration": "span_nanos",
}
_ZERO = {"string": ("",), "boolean": (False,), "bytes": ("",), "array": ([],), "map": ({},)}
_ZERO_NAMED = {
    "io.debezium.data.Uuid": ("00000000-0000-0000-0000-000000000000",),
    "io.debezium.time.ZonedTimestamp": ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
    "io.debezium.time.ZonedTime": ("00:00:00Z",),
    "org.apache.kafka.connect.data.Decimal": ("AA==", ""),
}


def from_schema(fields: Any) -> dict[str, Meaning]:
    """Column -> meaning, of the `fields` of a Connect struct schema. What is malformed or not known is left out."""
    found: dict[str, Meaning] = {}
    for entry in fields if isinstance(fields, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("field"), str):
            continue
        name, kind = entry.get("name"), ""
        if isinstance(name, str):
            kind = _LOGICAL.get(name, "")
        if not kind and entry.get("type") == "bytes":
            kind = "bytes"
        scale = 0
        if kind == "decimal":
            parameters = entry.get("parameters")
            text = parameters.get("scale") if isinstance(parameters, dict) else None
            try:
                scale = int(str(text))
            except ValueError:
                continue
        zero = _ZERO_NAMED.get(name, ()) if isinstance(name, str) else ()
        default = (entry["default"],) if "default" in entry else ()
        found[entry["field"]] = Meaning(kind, scale, (*default, *(zero or _ZERO.get(str(entry.get("type")), (0,)))))
    return found


def from_hints(encoding: Encoding) -> dict[str, Meaning]:
    """Column -> meaning, of a topic's hints. Raises ConfigError for a hint that does not exist."""
    found = {column: Meaning("decimal", scale) for column, scale in encoding.decimals.items()}
    for column, kind in encoding.temporals.items():
        if kind not in TEMPORAL:
            raise ConfigError(f"reading encoding.temporals of column {column!r}: {kind!r} is not one of {sorted(TEMPORAL)}")
        found[column] = Meaning(kind)
    return found


def unscaled(text: Any, scale: int, field: str) -> Decimal:
    """A base64 big-endian two's complement integer as Decimal of that scale. Raises Bad invalid-field, number-too-large."""
    raw = b64(text, field)
    if len(raw) <= 64 and -64 <= scale <= 64:  # what databases have
        return Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-scale, EXACT)
    if len(raw) > _MAX_BYTES or abs(scale) > MAX_DIGITS:
        raise Bad("number-too-large", f"a decimal past {MAX_DIGITS} digits", field)
    found = Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-scale, EXACT)
    check_decimal(found, field)
    return found


def b64(text: Any, field: str) -> bytes:
    """Bytes of standard base64. Raises Bad invalid-field."""
    try:
        if isinstance(text, str):
            return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one
        pass
    raise Bad("invalid-field", f"{short(text)} is not base64", field)


def struct_decimal(value: Mapping[str, Any], field: str) -> Decimal:
    """`{"scale": 4, "value": "Aak="}` (VariableScaleDecimal) as Decimal. Raises Bad invalid-field, number-too-large."""
    scale = value.get("scale")
    if type(scale) is not int:
        raise Bad("invalid-field", "a decimal struct without a whole scale", field)
    return unscaled(value.get("value"), scale, field)


def _whole(value: Any, field: str) -> int:
    if type(value) is not int:
        raise Bad("invalid-field", f"{short(value)} is not a whole number of its time unit", field)
    return value


def to_date(value: Any, field: str) -> date:
    """Epoch days as a date. Raises Bad invalid-time past the years 1 to 9999 (PostgreSQL's `infinity` is there)."""
    try:
        return date(1970, 1, 1) + timedelta(days=_whole(value, field))
    except OverflowError:
        raise Bad("invalid-time", "outside the years 1 to 9999", field) from None


def to_datetime(value: Any, per_micro: int, per_unit: int, field: str) -> datetime:
    """Epoch units (`value * per_unit // per_micro` microseconds) as an aware UTC datetime. Raises Bad invalid-time."""
    return at(checked_us(_whole(value, field) * per_unit // per_micro, field))


def to_time(value: Any, micros: int, field: str) -> time:
    """Time of day out of microseconds since midnight; 24:00:00 is its end. Raises Bad invalid-time."""
    if micros == 86_400_000_000:
        return time.max
    if not 0 <= micros < 86_400_000_000:
        raise Bad("invalid-time", f"{short(value)} is not a time of day", field)
    return at(micros).time()


def to_span(micros: int, field: str) -> timedelta:
    """Microseconds as a timedelta. Raises Bad invalid-time past its range."""
    try:
        return timedelta(microseconds=micros)
    except OverflowError:
        raise Bad("invalid-time", "longer than a time span can be", field) from None


def temporal(kind: str, field: str) -> Callable[[Any], Any]:
    """The conversion of one temporal meaning. Text is left to the row's field (ISO)."""

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return value
        whole = _whole(value, field)
        match kind:
            case "date":
                return to_date(whole, field)
            case "millis":
                return to_datetime(whole, 1, 1000, field)
            case "micros":
                return to_datetime(whole, 1, 1, field)
            case "nanos":
                return to_datetime(whole, 1000, 1, field)
            case "time_millis":
                return to_time(whole, whole * 1000, field)
            case "time_micros":
                return to_time(whole, whole, field)
            case "time_nanos":
                return to_time(whole, whole // 1000, field)
            case "span_millis":
                return to_span(whole * 1000, field)
            case "span_micros":
                return to_span(whole, field)
            case _:
                return to_span(whole // 1000, field)

    return convert


def undeclared_datetime(value: Any, field: str) -> Any:
    """A whole number in a datetime column that nothing declares: the unit under which it lies in 1978..2198.

    The three windows do not meet (milliseconds 2.6e11..7.2e12, micro- and nanoseconds 1e3 and 1e6 times that). Outside of
    them two readings are plausible, so it is a Fault. They begin where they do because 9999-12-31, which many tables use for
    "never ends", is 2.53e14 in milliseconds and must not be read as a day of January 1978 in microseconds.
    """
    if type(value) is not int:
        return value
    size = abs(value)
    for thousand, times, by in ((10**9, 1000, 1), (10**12, 1, 1), (10**15, 1, 1000)):
        if 260 * thousand <= size < 7200 * thousand:
            return at(checked_us(value * times // by, field))
    if value == 0:
        return at(0)
    raise Bad("ambiguous-time", "milli-, micro- or nanoseconds: set encoding.temporals of this column", field)


def undeclared_time(value: Any, field: str) -> Any:
    """A whole number in a time column that nothing declares: microseconds past 86.4 s, a Fault where it may be milliseconds."""
    if type(value) is not int:
        return value
    if value and value < 86_400_000:
        raise Bad("ambiguous-time", "milli- or microseconds of the day: set encoding.temporals of this column", field)
    return to_time(value, value if value <= 86_400_000_000 else value // 1000, field)


def undeclared_date(value: Any, field: str) -> Any:
    """A whole number in a date column that nothing declares: epoch days."""
    return to_date(value, field) if type(value) is int else value


def undeclared_span(value: Any, field: str) -> Any:
    """A whole number in an interval column that nothing declares: microseconds, Debezium's only numeric form."""
    return to_span(value, field) if type(value) is int else value


def device_datetime(unit: str, field: str) -> Callable[[Any], datetime]:
    """The conversion of a datetime field in telemetry or an event: `Encoding.timestamps` says the unit, or "auto"."""
    return lambda value: at(epoch_us(value, unit, field))


def naive(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same without an offset, for fields declared as NaiveDatetime."""

    def strip(value: Any) -> Any:
        found = convert(value)
        return found.astimezone(UTC).replace(tzinfo=None) if isinstance(found, datetime) and found.tzinfo else found

    return strip
