"""Dead letters: an input record that could not be decided, with key, value and headers as they came and the reason in headers."""

from __future__ import annotations

from schemas.dead_letter import SCHEMA, Fault
from schemas.wire import rfc3339
from topics.handover import Outbound
from topics.header_names import sendable
from topics.publish.sizes import BATCH_OVERHEAD, record_size
from topics.record import RawRecord

_DETAIL = 500
"""Most characters of a fault's detail that are kept."""
_ESCAPED = "headrace_escaped_headers"


def dead_letter(
    record: RawRecord, *, fault: Fault, agent: str, version: int, run: str, id: str, part: int, parts: int, input_hash: str,
    at: int, topic: str, max_bytes: int,
) -> Outbound:  # fmt: skip
    """The dead letter of one record, or of one part of it. `at` is epoch milliseconds, `max_bytes` what the topic takes.

    Where the whole does not fit, the original headers are dropped first, then the value keeps only its head, then the key
    goes: `headrace_truncated` is "true", and hash, size and coordinates say what the whole was.
    A header's name that is no UTF-8 is escaped (topics/header_names.py), and `headrace_escaped_headers` tells its place,
    from 0; without one it is written only where the record itself claims it.
    """
    told = [
        ("schema", SCHEMA), ("id", id), ("agent", agent), ("version", str(version)), ("run", run), ("stage", fault.stage),
        ("reason", fault.reason), ("field", fault.field), ("detail", fault.detail[:_DETAIL]), ("topic", record.topic),
        ("partition", str(record.partition)), ("offset", str(record.offset)), ("timestamp", str(record.timestamp)),
        ("part", str(part)), ("parts", str(parts)), ("input_hash", input_hash),
        ("value_bytes", str(len(record.value or b""))), ("at", rfc3339(at)),
    ]  # fmt: skip
    ours = tuple((f"headrace_{name}", value.encode(errors="replace")) for name, value in told if value is not None)
    original, escaped = sendable(record.headers)
    whole = (*original, *ours, ("headrace_truncated", b"false"))
    if escaped or any(name == _ESCAPED for name, _ in original):
        whole += ((_ESCAPED, ",".join(map(str, escaped)).encode()),)
    if BATCH_OVERHEAD + record_size(record.key, record.value, whole) <= max_bytes:
        return Outbound(topic, record.key, record.value, whole, "dead_letter")
    cut = (*ours, ("headrace_truncated", b"true"))
    room = max_bytes - BATCH_OVERHEAD - record_size(record.key, None, cut)
    key = record.key
    if room < 0:
        key, room = None, max_bytes - BATCH_OVERHEAD - record_size(None, None, cut)
    value = record.value[: max(0, room)] if record.value is not None else None
    return Outbound(topic, key, value, cut, "dead_letter")
