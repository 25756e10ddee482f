"""Facts that somebody published as plain JSON objects or as CloudEvents."""

from __future__ import annotations

from typing import Any

from schemas.dead_letter import Fault
from schemas.event import Event
from topics.decode.cloudevents import CloudEvent
from topics.decode.faults import Bad, short
from topics.decode.ids import own_id
from topics.decode.result import Control, Decoded, Result
from topics.decode.rows import RowPlan
from topics.decode.telemetry import ID, TIME, named
from topics.decode.times import clock_check, epoch_us
from topics.record import RawRecord
from topics.spec import TopicSpec


class EventDecoder:
    """Events of one topic. Compiled once, stateless."""

    def __init__(self, spec: TopicSpec[Any]) -> None:
        """Raises ConfigError for a spec that can not work."""
        self.spec = spec
        self._unit = spec.encoding.timestamps
        self._rows = RowPlan(spec, "telemetry")
        self._time, self._id = named(spec.encoding.time_field, TIME), named(spec.encoding.id_field, (*ID, "id"))
        self._check = clock_check(spec.clock)

    def tombstone(self, record: RawRecord) -> Result[Event[Any]]:
        """A record without a value."""
        return Control("tombstone")

    def values(self, payload: Any, plan: None, record: RawRecord, event: CloudEvent | None) -> Result[Event[Any]]:
        """What one opened value comes to. A CloudEvent's time, id and subject stand over the data's. Raises Bad."""
        if payload is None:
            return Control("tombstone")
        if type(payload) is not dict:
            raise Bad("not-an-object", f"an event is a JSON object, not {short(payload)}")
        cleaned: list[str] = []
        row = self._rows.build(payload, cleaned)
        event_ms, event_id, subject = None, "", ""
        if event is not None:
            event_ms, event_id, subject = event.time_ms, event.event_id, event.subject
        if event_ms is None:
            field, moment = self._time(payload)
            if moment is not None:
                event_ms = epoch_us(moment, self._unit, field) // 1000
        if not event_id:
            event_id = own_id(self._id(payload)[1])
        verdict = self._check(event_ms, record.timestamp)
        if verdict is not None:
            return verdict if isinstance(verdict, Fault) else Decoded((verdict,), tuple(cleaned))
        return Decoded((Event(row, event_ms, event_id, subject),), tuple(cleaned))
