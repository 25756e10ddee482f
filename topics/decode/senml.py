"""SenML packs (RFC 8428): base values resolved, records gathered by device and time.

A resolved name is device and measurement in one (`urn:dev:mac:0024befffe804ff1:temperature`). Where the record's own `n` is a
measurement of the row, the base name is the device; else the name is cut at its last separator. Values stay exact decimals.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from schemas.dead_letter import Fault
from topics.decode.faults import Bad, short
from topics.decode.numbers import EXACT, check_decimal
from topics.decode.times import epoch_us

_LABELS = frozenset({"bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut"})
_MARKS = frozenset({"bn", "n"})
_SEPARATORS = ":/.#-_"
RELATIVE = 1 << 28
"""Times below this are relative to now (RFC 8428, section 4.5.3); now is the broker's record time."""


@dataclass(slots=True)
class Point:
    """What a pack says about one device at one time. `timed`: the device named an absolute time itself."""

    device: str
    event_ms: int | None
    timed: bool
    values: dict[str, Any] = field(default_factory=dict)
    bad: Fault | None = None


@dataclass(slots=True)
class _Base:
    name: str = ""
    time: int | Decimal = 0
    value: int | Decimal | None = None


def is_senml(payload: list[Any]) -> bool:
    """True where an array is a SenML pack: its first record is named, and has only labels of SenML or such as `x_`."""
    head = payload[0] if payload else None
    return type(head) is dict and bool(_MARKS & head.keys()) and all(k in _LABELS or k.endswith("_") for k in head)


def resolve(pack: list[Any], wanted: Collection[str], key: str | None, now_ms: int) -> list[Point]:
    """The points of a pack in the order of their first record. `wanted` are the measurements that the row knows.

    A record that is wrong makes its device's point bad, not the pack. Raises Bad where base values are wrong, on which all
    that follows rests, and where the pack asks for a version or a label that must be understood and is not.
    """
    base, points = _Base(), dict[tuple[str, int | None], Point]()
    for place, record in enumerate(pack):
        if type(record) is not dict:
            raise Bad("senml-record", f"{short(record)} is not a SenML record", str(place))
        _rebase(base, record, place)
        if not record.keys() & {"n", "v", "vs", "vb", "vd", "s"}:
            continue  # base values only
        try:
            device, measurement = _split(base.name, record.get("n", ""), wanted, key, place)
            event_ms, timed = _when(base, record, now_ms, place)
        except Bad as bad:
            # Whose it is can not be said: an element of its own.
            points[f"#{place}", None] = Point("", None, False, bad=bad.fault)
            continue
        point = points.setdefault((device, event_ms), Point(device, event_ms, timed))
        try:
            value = _value(base, record, f"{place}")
            if measurement in point.values and point.values[measurement] != value:
                raise Bad("duplicate-metric", f"{short(measurement)} is there twice with different values", str(place))
            point.values[measurement] = value
        except Bad as bad:
            fault = bad.fault
            point.bad = point.bad or Fault(fault.stage, fault.reason, f"device {short(device)}: {fault.detail}", fault.field)
    return list(points.values())


def _rebase(base: _Base, record: dict[str, Any], place: int) -> None:
    version = record.get("bver", 10)
    if type(version) is not int or version > 10:
        raise Bad("senml-version", f"version {short(version)}; 10 is known", f"{place}.bver")
    for label in record:
        if label.endswith("_") and label not in _LABELS:
            raise Bad("senml-label", f"{short(label)} must be understood and is not", str(place))
    if "bn" in record:
        if not isinstance(record["bn"], str):
            raise Bad("senml-record", "the base name is not a text", f"{place}.bn")
        base.name = record["bn"]
    if "bt" in record:
        base.time = _number(record["bt"], f"{place}.bt")
    if "bv" in record:
        base.value = _number(record["bv"], f"{place}.bv")


def _number(value: Any, path: str) -> int | Decimal:
    if isinstance(value, Decimal):
        check_decimal(value, path)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Bad("senml-record", f"{short(value)} is not a number", path)


def _when(base: _Base, record: dict[str, Any], now_ms: int, place: int) -> tuple[int | None, bool]:
    """Epoch milliseconds, and whether the pack itself says them. Without a known now a relative time is not known."""
    seconds = EXACT.add(Decimal(base.time), Decimal(_number(record.get("t", 0), f"{place}.t")))
    if seconds >= RELATIVE:
        return epoch_us(seconds, "s", f"{place}.t") // 1000, True
    if now_ms <= 0:
        return None, False
    if seconds < -(10**11):
        raise Bad("invalid-time", "outside the years 1 to 9999", f"{place}.t")
    return now_ms + int(EXACT.multiply(seconds, Decimal(1000))), False


def _value(base: _Base, record: dict[str, Any], path: str) -> Any:
    found = [label for label in ("v", "vs", "vb", "vd") if label in record]
    if len(found) > 1:
        raise Bad("senml-record", "more than one value", path)
    if not found:
        if "s" in record and base.value is None:
            return _number(record["s"], f"{path}.s")
        if base.value is None:
            raise Bad("senml-record", "neither a value nor a sum", path)
        return base.value
    value = record[found[0]]
    if found[0] == "v":
        number = _number(value, f"{path}.v")
        if base.value is None:
            return number
        total = EXACT.add(Decimal(number), Decimal(base.value))
        check_decimal(total, f"{path}.v")  # of two whole numbers as well: together they may have a digit more
        return int(total) if type(number) is int and type(base.value) is int else total
    if found[0] == "vb" and not isinstance(value, bool):
        raise Bad("senml-record", f"{short(value)} is not a boolean", f"{path}.vb")
    if found[0] in ("vs", "vd") and not isinstance(value, str):
        raise Bad("senml-record", f"{short(value)} is not a text", f"{path}.{found[0]}")
    return value


def _split(base: str, name: Any, wanted: Collection[str], key: str | None, place: int) -> tuple[str, str]:
    """Device and measurement of one record."""
    if not isinstance(name, str):
        raise Bad("senml-record", "the name is not a text", f"{place}.n")
    if name and base.rstrip(_SEPARATORS) and (name in wanted or not any(mark in name for mark in ":/")):
        return base.rstrip(_SEPARATORS), name
    whole = base + name
    cut = max(whole.rfind(mark) for mark in ":/")
    device, measurement = (whole[:cut], whole[cut + 1 :]) if cut >= 0 else ("", whole)
    device = device.rstrip(_SEPARATORS) or key or ""
    if not device or not measurement:
        raise Bad("missing-device", "the name has no device and measurement, and the record's key names none", f"{place}.n")
    return device, measurement
