"""The door: a decoder for one topic, compiled once, total for ever after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from schemas.dead_letter import Fault
from schemas.errors import ConfigError
from topics.decode import cloudevents
from topics.decode.cloudevents import CloudEvent
from topics.decode.debezium import ChangeDecoder
from topics.decode.envelopes import Opener
from topics.decode.event import EventDecoder
from topics.decode.faults import Bad
from topics.decode.result import Result
from topics.decode.telemetry import ReadingDecoder
from topics.decode.telling import teller
from topics.header_names import first_invalid
from topics.record import RawRecord
from topics.spec import TopicSpec

V = TypeVar("V")


class Body(Protocol):
    """What each kind of topic makes of an opened value. `values` may raise Bad, nothing else."""

    def tombstone(self, record: RawRecord) -> Result[Any]: ...

    def values(self, payload: Any, plan: Any, record: RawRecord, event: CloudEvent | None) -> Result[Any]: ...


def decoder(spec: TopicSpec[V]) -> Callable[[RawRecord], Result[V]]:
    """A function from a record of this topic to its values, a Control or a Fault, which never raises, whatever the bytes.

    Raises ConfigError here and now for a spec that can not work (no row, a rule about a field that is not there).
    """
    body, opener = _compile(spec)
    tell = teller(spec)
    max_bytes, max_depth = spec.encoding.max_bytes, spec.encoding.max_depth

    def run(record: RawRecord) -> Result[V]:
        try:
            event = _context(record.headers) if record.headers else None
            raw = record.value
            if raw is None:
                return body.tombstone(record)
            payload, plan = opener.open(raw)
            if event is None and cloudevents.is_structured(payload):
                event, payload = cloudevents.structured(payload, max_bytes, max_depth)
            return body.values(payload, plan, record, event)
        except Bad as bad:
            return tell(bad.fault)
        except Exception as error:  # noqa: BLE001 - the last line: a defect here must cost one record, not the partition
            return Fault("decode", "decoder-error", f"{type(error).__name__} while decoding")

    return run


def decode(spec: TopicSpec[V], record: RawRecord) -> Result[V]:
    """One record, with a decoder compiled for it alone: for tools, not for streams."""
    return decoder(spec)(record)


def _context(headers: Sequence[tuple[str, bytes]]) -> CloudEvent | None:
    """What the headers tell. Raises Bad for a name that is no UTF-8, whatever else the record is: nobody could pass it on."""
    bad = first_invalid(headers)
    if bad is not None:
        raise Bad("invalid-header-name", f"the name of header {bad + 1} of {len(headers)} is not UTF-8")
    return cloudevents.binary(headers)


def _compile(spec: TopicSpec[Any]) -> tuple[Body, Opener[Any]]:
    encoding = spec.encoding
    if spec.kind == "change":
        change = ChangeDecoder(spec)
        return change, change.opener
    plain: Opener[Any] = Opener(encoding.max_bytes, encoding.max_depth, lambda schema: None, "value")
    if spec.kind == "reading":
        return ReadingDecoder(spec), plain
    if spec.kind == "event":
        return EventDecoder(spec), plain
    raise ConfigError(f"compiling the decoder of topic {spec.name}: it is written by us, not read")
