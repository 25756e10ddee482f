"""Readings of devices: flat JSON, a list or map of metrics, several of these in an array, or SenML (topics/decode/senml.py).

The device is named by `Encoding.device_field`, else by the first of DEVICE that is there, else by a CloudEvent's subject, else by
the record's key. Time and id likewise (TIME, ID). A bad element of an array is a Fault of its own; its neighbours are not bad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from schemas.dead_letter import Fault
from schemas.reading import Reading
from topics.decode.cloudevents import CloudEvent
from topics.decode.faults import Bad, short
from topics.decode.ids import own_id, part
from topics.decode.json_text import load
from topics.decode.result import Control, Decoded, Result, Skipped
from topics.decode.rows import RowPlan
from topics.decode.senml import is_senml, resolve
from topics.decode.telling import teller
from topics.decode.times import clock_check, epoch_us
from topics.record import RawRecord
from topics.spec import TopicSpec

DEVICE = ("device", "device_id", "deviceId", "machine", "machine_id", "machineId", "sensor_id", "sensorId", "sensor")
TIME = ("ts", "timestamp", "time", "event_time", "eventTime", "datetime")
ID = ("event_id", "eventId", "message_id", "messageId")
METRICS = ("metrics", "values", "measurements", "fields")

Element = Reading[Any] | Fault | Skipped
_NO_META: Mapping[str, Any] = {}


def named(configured: str, usual: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[str, Any]]:
    """A look-up of the configured field, or of the first usual one that has a value: (its name, its value or None)."""
    names = (configured,) if configured else usual

    def find(body: Mapping[str, Any]) -> tuple[str, Any]:
        for name in names:
            value = body.get(name)
            if value is not None:
                return name, value
        return names[0], None

    return find


class ReadingDecoder:
    """Readings of one topic. Compiled once, stateless."""

    def __init__(self, spec: TopicSpec[Any]) -> None:
        """Raises ConfigError for a spec that can not work."""
        encoding = spec.encoding
        self.spec = spec
        self._max_bytes, self._max_depth, self._unit = encoding.max_bytes, encoding.max_depth, encoding.timestamps
        self._rows = RowPlan(spec, "telemetry")
        self._device, self._time = named(encoding.device_field, DEVICE), named(encoding.time_field, TIME)
        self._id = named(encoding.id_field, ID)
        self._wires = frozenset(self._rows.by_wire)
        self._containers = tuple(name for name in METRICS if name not in self._wires)
        self._check = clock_check(spec.clock)
        self._tell = teller(spec)

    def tombstone(self, record: RawRecord) -> Result[Reading[Any]]:
        """A record without a value."""
        return Control("tombstone")

    def values(self, payload: Any, plan: None, record: RawRecord, event: CloudEvent | None) -> Result[Reading[Any]]:
        """What one opened value comes to. Raises Bad where it is one reading, which is bad."""
        if payload is None:
            return Control("tombstone")
        cleaned: list[str] = []
        if type(payload) is dict:
            found = self._one(payload, record, event, cleaned)
            return found if isinstance(found, Fault) else Decoded((found,), tuple(cleaned))
        if type(payload) is not list:
            raise Bad("not-an-object", f"a reading is a JSON object or array, not {short(payload)}")
        if is_senml(payload):
            return Decoded(self._pack(payload, record, cleaned), tuple(cleaned))
        elements: list[Element] = []
        for place, body in enumerate(payload):
            acted: list[str] = []
            try:
                if type(body) is not dict:
                    raise Bad("not-an-object", f"{short(body)} is not a reading", str(place))
                elements.append(self._one(body, record, None, acted))
            except Bad as bad:
                elements.append(self._tell(bad.fault))
            cleaned += acted
        return Decoded(tuple(elements), tuple(cleaned))

    def _one(self, body: dict[str, Any], record: RawRecord, event: CloudEvent | None, cleaned: list[str]) -> Element:
        """One reading out of a flat object, or one with a list or map of metrics. Raises Bad."""
        measured, meta = body, _NO_META
        for name in self._containers:
            inner = body.get(name)
            if isinstance(inner, (list, dict)):
                measured, meta = body | metrics(inner, name), body
                break
        _, device = self._device(meta or body)
        if device is None:
            device = event.subject if event is not None and event.subject else self._key(record.key)
        if isinstance(device, bool) or not isinstance(device, (str, int)) or device == "":
            raise Bad("missing-device", "neither the value nor the record's key names the device", self._device(_NO_META)[0])
        field, moment = self._time(meta or body)
        event_ms = None
        if moment is not None:
            event_ms = epoch_us(moment, self._unit, field) // 1000
        elif event is not None:
            event_ms = event.time_ms
        own = self._id(meta or body)[1]
        if own is None and event is not None:
            own = event.event_id
        return self._finish(str(device), measured, event_ms, own, event_ms is not None, record, cleaned)

    def _finish(
        self, device: str, measured: Mapping[str, Any], event_ms: int | None, own: Any, timed: bool, record: RawRecord,
        cleaned: list[str],
    ) -> Element:  # fmt: skip
        row = self._rows.build(measured, cleaned)
        verdict = self._check(event_ms, record.timestamp)
        if verdict is not None:
            return verdict
        if given := own_id(own):
            event_id = f"{part(device, '/')}/{given}"
        elif timed:
            # A device may send its measurements of one moment in several records: only the same values are a repeat.
            seen = repr([(name, measured[name]) for name in measured if name in self._wires])
            event_id = f"{part(device, '/')}@{event_ms}#{crc32(seen.encode('utf-8', 'replace')):08x}"
        else:
            event_id = ""
        return Reading(device, row, event_ms, event_id)

    def _pack(self, pack: list[Any], record: RawRecord, cleaned: list[str]) -> tuple[Element, ...]:
        """One element for each device and time of a SenML pack, in the order of their first record."""
        found: list[Element] = []
        for point in resolve(pack, self._wires, self._key(record.key), record.timestamp):
            acted: list[str] = []
            try:
                if point.bad is not None:
                    found.append(self._tell(point.bad))
                    continue
                found.append(self._finish(point.device, point.values, point.event_ms, None, point.timed, record, acted))
            except Bad as bad:
                fault = bad.fault
                detail = f"device {short(point.device)}: {fault.detail}"
                found.append(self._tell(Fault(fault.stage, fault.reason, detail, fault.field)))
            cleaned += acted
        return tuple(found)

    def _key(self, raw: bytes | None) -> str | None:
        """The device that a record's key names: text, a JSON text or number, or an object with one of the device's names."""
        if not raw or len(raw) > 1024:
            return None
        if raw[:1] in b'{"':
            try:
                value = load(raw, self._max_bytes, self._max_depth, "key")
            except Bad:
                return None
            if isinstance(value, dict):
                inner = value.get("payload")
                value = self._device(inner if isinstance(inner, dict) else value)[1]
            return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return None


def metrics(inner: list[Any] | dict[str, Any], field: str) -> dict[str, Any]:
    """Name -> value of `[{"name", "value"}]` or `{name: value}`. Raises Bad for one without name or value, or named twice."""
    if isinstance(inner, dict):
        return inner
    found: dict[str, Any] = {}
    for place, metric in enumerate(inner):
        name = metric.get("name") if isinstance(metric, dict) else None
        if not isinstance(name, str) or "value" not in metric:
            raise Bad("invalid-metric", "a metric has a name (text) and a value", f"{field}.{place}")
        if name in found and found[name] != metric["value"]:
            raise Bad("duplicate-metric", f"{short(name)} is there twice with different values", f"{field}.{place}")
        found[name] = metric["value"]
    return found
