"""Readings of the AI4I 2020 data as telemetry of several milling machines, in the three shapes that telemetry comes in.

Ours, not the data set's, because it has neither: the machines, and the times (one reading a machine every half minute, the last
about now). Ours too: a few sensors that stay silent, and a few records that were sent twice, as MQTT does at QoS 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson

from agents.demo.datasets import Dealt, MillingRow, ToolLife, deal
from agents.demo.drafts import Draft, Rendered, broken_places, dice
from agents.product_quality import MACHINE_READINGS
from schemas.wire import rfc3339

STEP_MS = 30_000
"""Event time between two readings of one machine, at least."""
FAULTS = ("truncated", "not-a-number", "clock-of-1970", "wrong-type", "clock-of-2099")
_READINGS_A_MACHINE = 1_000
"""More machines rather than a longer day: readings older than a day are refused."""
_SILENT, _REPEATED = 0.005, 0.02
_UNITS = {"air_temperature": "K", "process_temperature": "K", "rotational_speed": "1/min", "torque": "Nm", "tool_wear": "min"}
_2099_MS = 4_070_908_800_000


def machines(count: int) -> int:
    """How many machines `count` readings are dealt to."""
    return max(8, math.ceil(count / _READINGS_A_MACHINE))


def measured(row: MillingRow) -> dict[str, Any]:
    """The reading under the names of the topic, in the units that the machine sends."""
    silent = dice("silent", row.number) < _SILENT
    return {
        "product": row.product,
        "variant": row.variant,
        "air_temperature": row.air_k,
        "process_temperature": row.process_k,
        "rotational_speed": row.speed,
        "torque": None if silent else row.torque,
        "tool_wear": row.wear,
    }


def readings(lives: Sequence[ToolLife], count: int, *, start_ms: int, seconds: float) -> Iterator[list[Draft]]:
    """`count` records of machine readings in order, to be sent evenly over `seconds` from `start_ms` on.

    The last turn of all machines ends when the sending does, each machine a little apart; earlier turns lie `STEP_MS` back,
    or as much as they are sent apart where that is more: no reading is sent before it was taken.
    """
    broken = broken_places(count, FAULTS)
    many = machines(count)
    turns = math.ceil(count / many)
    end_ms = start_ms + int(seconds * 1000)
    step_ms = max(STEP_MS, math.ceil(seconds * 1000 / max(1, turns)))
    last: Draft | None = None
    dealt = deal(lives, count, many)
    for place in range(count):
        if last is not None and place not in broken and dice("repeat", place) < _REPEATED:
            # A repeat is the same bytes again: what makes it a repeat is its device and time.
            yield [last]
            last = None
            continue
        reading = next(dealt)
        apart = (int(reading.machine.rpartition("-")[2]) - 1) * step_ms // many
        at_ms = end_ms - (turns - reading.turn) * step_ms + apart
        draft = _draft(reading, at_ms)
        yield [_break(draft, broken[place], reading, at_ms) if place in broken else draft]
        last = draft if place not in broken else None


def flat(machine: str, at_ms: int, values: dict[str, Any]) -> bytes:
    """One object, time in milliseconds."""
    return orjson.dumps({"device": machine, "ts": at_ms, **values})


def metrics(machine: str, at_ms: int, values: dict[str, Any]) -> bytes:
    """A list of named metrics, time in ISO 8601."""
    listed = [{"name": n, "value": v, **({"unit": _UNITS[n]} if n in _UNITS else {})} for n, v in values.items() if v is not None]
    return orjson.dumps({"device": machine, "ts": rfc3339(at_ms), "metrics": listed})


def senml(machine: str, at_ms: int, values: dict[str, Any]) -> bytes:
    """A SenML pack (RFC 8428): base name and base time in seconds in its first record, texts as `vs`."""
    pack: list[dict[str, Any]] = []
    for name, value in values.items():
        if value is None:
            continue
        entry: dict[str, Any] = {"n": name, "vs" if isinstance(value, str) else "v": value}
        if name in _UNITS:
            entry["u"] = _UNITS[name]
        pack.append(entry)
    pack[0] = {"bn": f"{machine}:", "bt": at_ms / 1000, **pack[0]}
    return orjson.dumps(pack)


_SHAPES = (flat, metrics, senml)


def _draft(reading: Dealt, at_ms: int) -> Draft:
    shape = _SHAPES[int(reading.machine.rpartition("-")[2]) % len(_SHAPES)]
    values = measured(reading.row)
    value = shape(reading.machine, at_ms, values)
    rendered = reading.machine.encode(), value
    return Draft(
        MACHINE_READINGS.name, "reading", reading.machine, reading.row.number, lambda _: rendered,
        values={"device": reading.machine, "event_ms": at_ms, **values},
    )  # fmt: skip


def _break(draft: Draft, how: str, reading: Dealt, at_ms: int) -> Draft:
    """The draft, broken on purpose in one place; always in the flat shape, which has a place for every mistake."""
    values = measured(reading.row)
    value = flat(reading.machine, {"clock-of-1970": 86_400_000, "clock-of-2099": _2099_MS}.get(how, at_ms), values)
    if how == "truncated":
        value = value[: len(value) * 2 // 3]
    elif how == "not-a-number":
        value = value.replace(b'"rotational_speed":%d' % reading.row.speed, b'"rotational_speed":NaN')
    elif how == "wrong-type":
        value = flat(reading.machine, at_ms, {**values, "tool_wear": "new"})
    rendered: Rendered = (reading.machine.encode(), value)
    return replace(draft, render=lambda _: rendered, fault=how, values=None)
