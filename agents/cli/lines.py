"""Lines of `headrace agents try`: each is one Kafka record as JSON, or the bare value of one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from topics.record import Raw

FIELDS: Final = frozenset({"topic", "key", "value", "headers", "partition", "offset", "timestamp"})
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_LATEST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: what lies beyond has no RFC 3339 form."""
_MOST: Final = {"partition": 2**31 - 1, "offset": 2**63 - 1, "timestamp": _LATEST_MS}
_NO_TIMESTAMP: Final = -1


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is a record. `number` counts from 1."""

    number: int
    record: Raw


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that says of itself that it is a record, and is not. `field` is the offending one."""

    number: int
    field: str
    why: str


def parse_lines(lines: Iterable[bytes], topic: str) -> Iterator[Line | Malformed]:
    """Every line but blank ones. A record that names no topic is one of `topic`."""
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if stripped:
            yield parse_line(stripped, number, topic)


def parse_line(line: bytes, number: int, topic: str) -> Line | Malformed:
    """An object with a `value` and no other fields than a record's is a record; anything else is the value of one.

    What is not even JSON is a value as well: the agent's decoder says what is wrong with it, as it would on Kafka. `key`
    and `value` are text taken as it is, or JSON that is written anew with its numbers exact. `headers` are an object, or
    pairs where a name repeats.
    """
    try:
        found = json.loads(line, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError):  # ArithmeticError: an exponent that no Decimal can have
        return Line(number, Raw(topic, line))
    if not isinstance(found, dict) or "value" not in found or not FIELDS.issuperset(found):
        return Line(number, Raw(topic, line))
    try:
        named = found.get("topic", topic)
        if not isinstance(named, str) or not _TOPIC.fullmatch(named) or named in (".", ".."):
            raise _BadFieldError("topic", "has to be the name of a topic: letters, digits, '.', '_' and '-', at most 249")
        record = Raw(
            topic=named, value=_bytes(found["value"]), key=_bytes(found.get("key")), headers=_headers(found.get("headers")),
            partition=_count(found, "partition"), offset=_count(found, "offset"), timestamp=_count(found, "timestamp"),
        )  # fmt: skip
    except _BadFieldError as error:
        return Malformed(number, error.field, error.why)
    except RecursionError:  # it could just be read, but not be written anew
        return Line(number, Raw(topic, line))
    return Line(number, record)


class _BadFieldError(Exception):
    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)
        self.field = field
        self.why = why


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return (value if isinstance(value, str) else "".join(_json(value))).encode("utf-8", "surrogatepass")


def _json(value: Any) -> Iterator[str]:
    """JSON text; numbers digit for digit, which json.dumps can not do for a Decimal."""
    if isinstance(value, Decimal):
        yield str(value)
    elif isinstance(value, dict):
        yield "{"
        for place, (name, member) in enumerate(value.items()):
            yield f"{',' if place else ''}{json.dumps(name)}:"
            yield from _json(member)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for place, member in enumerate(value):
            yield "," if place else ""
            yield from _json(member)
        yield "]"
    else:
        yield json.dumps(value)


def _headers(value: Any) -> tuple[tuple[str, bytes], ...]:
    if value is None:
        return ()
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise _BadFieldError("headers", "have to be an object of texts, or a list of [name, text]")
    made = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise _BadFieldError("headers", "have to be an object of texts, or a list of [name, text]")
        made.append((pair[0], pair[1].encode("utf-8", "surrogatepass")))
    return tuple(made)


def _count(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    if value is None:
        return 0
    if name == "timestamp" and value == _NO_TIMESTAMP and type(value) is int:
        return 0  # what Kafka writes where a record has no time
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST[name]:
        raise _BadFieldError(name, f"has to be a whole number from 0 to {_MOST[name]}")
    return value
