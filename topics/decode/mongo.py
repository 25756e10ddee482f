"""MongoDB's documents as Debezium writes them: JSON text inside JSON, in MongoDB Extended JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from topics.decode.faults import Bad, short
from topics.decode.json_text import load
from topics.decode.numbers import check_decimal
from topics.decode.times import NUMBER, at, checked_us, epoch_us


def document(text: Any, max_bytes: int, max_depth: int, field: str) -> dict[str, Any] | None:
    """A document out of its JSON text, extended types taken as plain values; None stays None. Raises Bad.

    `$oid` is text, `$numberInt` and `$numberLong` integers, `$numberDecimal` and `$numberDouble` decimals, `$date` an aware
    datetime, `$binary` bytes (a UUID for subtype 4), `$uuid` a UUID, `$timestamp` its seconds as a datetime.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise Bad("invalid-field", f"{short(text)} where MongoDB's document is a JSON text", field)
    found = plain(load(text.encode("utf-8", "surrogatepass"), max_bytes, max_depth, field), field)
    if not isinstance(found, dict):
        raise Bad("not-an-object", f"{field} is {short(found)}, not a document", field)
    return found


def plain(value: Any, field: str) -> Any:
    """A parsed value with its extended types taken as plain values. Recursion is bounded by the parser's depth. Raises Bad."""
    if isinstance(value, list):
        return [plain(inner, field) for inner in value]
    if not isinstance(value, dict):
        return value
    if len(value) in (1, 2):
        for name, read in _TYPES.items():
            if name in value and (len(value) == 1 or value.keys() == {"$binary", "$type"}):
                try:
                    return read(value[name] if name != "$binary" else value)
                except (ValueError, TypeError, KeyError, InvalidOperation, binascii.Error):
                    raise Bad("invalid-field", f"{short(value[name])} is no {name}", field) from None
    return {name: plain(inner, f"{field}.{name}") for name, inner in value.items()}


def _integer(value: Any) -> int:
    if isinstance(value, str) and len(value) <= 20:
        return int(value)
    if type(value) is int:
        return value
    raise ValueError


def _decimal(value: Any) -> Decimal:
    if not (type(value) in (int, Decimal) or (isinstance(value, str) and len(value) <= 60 and NUMBER.fullmatch(value))):
        raise ValueError
    found = Decimal(value)
    # Decimal128 reaches 1e6144, further than what is computed with here.
    check_decimal(found)
    return found


def _date(value: Any) -> Any:
    if isinstance(value, dict):
        value = _integer(value["$numberLong"])
    return at(epoch_us(value, "iso" if isinstance(value, str) else "ms", "$date"))


def _binary(value: dict[str, Any]) -> Any:
    inner = value["$binary"]
    text, subtype = (inner["base64"], inner["subType"]) if isinstance(inner, dict) else (inner, value.get("$type"))
    raw = base64.b64decode(text, validate=True)
    return UUID(bytes=raw) if str(subtype).lstrip("0") == "4" and len(raw) == 16 else raw


_TYPES: dict[str, Callable[[Any], Any]] = {
    "$oid": str,
    "$numberLong": _integer,
    "$numberInt": _integer,
    "$numberDecimal": _decimal,
    "$numberDouble": _decimal,
    "$date": _date,
    "$binary": _binary,
    "$uuid": lambda value: UUID(str(value)),
    "$timestamp": lambda value: at(checked_us(_integer(value["t"]) * 1_000_000, "$timestamp")),
    "$symbol": str,
}


def key_value(text: Any) -> Any:
    """The `id` of a MongoDB record key: the JSON text of `_id`. What is not such a text comes back as it is."""
    if not isinstance(text, str):
        return text
    try:
        return plain(load(text.encode("utf-8", "surrogatepass"), 16_384, 8, "key"), "key")
    except Bad:
        return text
