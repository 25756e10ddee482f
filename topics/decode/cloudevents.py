"""CloudEvents 1.0 on Kafka, binary (attributes in `ce_` headers) and structured (attributes in the body), around any data."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topics.decode.faults import Bad, short
from topics.decode.ids import part
from topics.decode.json_text import load
from topics.decode.times import epoch_us

_ATTRIBUTE_BYTES = 8192
"""Longest attribute that is read at all."""
_DEBEZIUM = "iodebezium"
_SOURCE = {
    "connector": "connector", "name": "name", "tsms": "ts_ms", "snapshot": "snapshot", "db": "db", "schema": "schema",
    "table": "table", "lsn": "lsn", "sequence": "sequence", "file": "file", "pos": "pos", "row": "row",
    "changelsn": "change_lsn", "commitlsn": "commit_lsn", "eventserialno": "event_serial_no", "ord": "ord",
    "collection": "collection", "scn": "scn", "commitscn": "commit_scn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """The context of one event. `time_ms` is epoch milliseconds; `id` is unique within `source`."""

    id: str
    source: str
    type: str
    subject: str = ""
    time_ms: int | None = None
    extensions: Mapping[str, Any] | None = None

    @property
    def event_id(self) -> str:
        """Equal for a repeated event, as the specification defines it: source and id."""
        return f"{part(self.source, '#')}#{self.id}"


def binary(headers: Sequence[tuple[str, bytes | None]]) -> CloudEvent | None:
    """The event context in a record's headers; None without one, or where the content type says that it is in the body.

    Raises Bad cloudevents-attribute, cloudevents-version, cloudevents-batch, unsupported-content-type.
    """
    found: dict[str, Any] = {}
    content = ""
    for name, value in headers:
        if name.startswith("ce_") and value is not None:
            if len(value) > _ATTRIBUTE_BYTES:
                raise Bad("cloudevents-attribute", f"an attribute has {len(value)} bytes", name[:40])
            found[name[3:]] = value.decode("utf-8", "replace")
        elif name.lower() == "content-type" and value is not None:
            content = value[:200].decode("utf-8", "replace").strip().lower()
    if content.startswith("application/cloudevents"):
        media = content.partition(";")[0].strip()
        if media.startswith("application/cloudevents-batch"):
            raise Bad("cloudevents-batch", "a batch of events in one record; Kafka's binding has single events only")
        if media not in ("application/cloudevents", "application/cloudevents+json"):
            raise Bad("unsupported-content-type", f"{media[:60]} is not JSON")
        return None
    if "specversion" not in found:
        return None
    _json_only(content)
    return _context(found)


def structured(body: Mapping[str, Any], max_bytes: int, max_depth: int) -> tuple[CloudEvent, Any]:
    """The event context and the data of a structured event; data is None where it has none. Raises Bad."""
    event = _context(body)
    _json_only(body.get("datacontenttype") or "")
    packed = body.get("data_base64")
    if packed is None:
        return event, body.get("data")
    try:
        raw = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Bad("cloudevents-attribute", f"{short(packed)} is not base64", "data_base64") from None
    return event, load(raw, max_bytes, max_depth, "data_base64")


def is_structured(body: Any) -> bool:
    """True where a JSON body is a CloudEvent by its shape: Debezium's converter sets no content type."""
    return type(body) is dict and "specversion" in body and "source" in body and "type" in body and "id" in body


def debezium(event: CloudEvent, data: Any) -> Any:
    """The change envelope that Debezium's CloudEvents converter spreads over attributes (`iodebezium...`) and data."""
    attributes = event.extensions or {}
    op = attributes.get(_DEBEZIUM + "op")
    if op is None or not isinstance(data, dict) or "op" in data:
        return data
    if data.keys() == {"schema", "payload"} and isinstance(data["payload"], dict):
        data = data["payload"]
    source = {ours: attributes.get(_DEBEZIUM + theirs) for theirs, ours in _SOURCE.items()}
    return {"before": data.get("before"), "after": data.get("after"), "op": op, "source": source}


def _context(found: Mapping[str, Any]) -> CloudEvent:
    version = found.get("specversion")
    if version not in ("1.0", "0.3"):
        raise Bad("cloudevents-version", f"{short(version)} is not a version that is known", "specversion")
    for name in ("id", "source", "type"):
        value = found.get(name)
        if not isinstance(value, str) or not value:
            raise Bad("cloudevents-attribute", "a required attribute is missing", name)
    moment, subject = found.get("time"), found.get("subject")
    time_ms = None
    if moment is not None:
        time_ms = epoch_us(moment, "iso", "time") // 1000
    return CloudEvent(
        found["id"], found["source"], found["type"], subject if isinstance(subject, str) else "", time_ms,
        {k: v for k, v in found.items() if k.startswith(_DEBEZIUM)} or None,
    )  # fmt: skip


def _json_only(content: Any) -> None:
    media = str(content).partition(";")[0].strip().lower()
    if media and media not in ("application/json", "text/json") and not media.endswith("+json"):
        raise Bad("unsupported-content-type", f"{media[:60]} is not JSON")
