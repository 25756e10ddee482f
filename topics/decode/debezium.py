"""Row changes as Debezium writes them: enveloped or flattened (ExtractNewRecordState), with and without schemas, any database."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from schemas.change import Change, Op, SourcePosition
from schemas.dead_letter import Fault
from topics.decode import mongo
from topics.decode.cloudevents import CloudEvent, debezium
from topics.decode.connect_types import Meaning, from_schema
from topics.decode.envelopes import Opener
from topics.decode.faults import Bad, short
from topics.decode.numbers import bounded
from topics.decode.placeholders import only_placeholders
from topics.decode.positions import connector_of, event_id, position_of, whole
from topics.decode.result import Control, Decoded, Result
from topics.decode.rows import Column, RowPlan, when_unavailable
from topics.decode.times import IMPLAUSIBLE, MAX_MS, MIN_MS, clock_check
from topics.record import RawRecord
from topics.spec import TopicSpec

HEARTBEAT_TOPIC = "__debezium-heartbeat"
_MARK = "__debezium_unavailable_value"
UNAVAILABLE: tuple[Any, ...] = (_MARK, "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", [_MARK], list(_MARK.encode()))
"""How an unchanged TOAST value reads: as text, as base64 in a bytes column, in an array of text, in an array of numbers."""

_ROW_OPS = frozenset("rcud")
_STRUCT = re.compile(r"(?:Struct)?\{(.*)\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one schema on the wire (or its absence) means for decoding. `declared` holds the columns that it describes."""

    rows: RowPlan
    declared: Mapping[str, Meaning]


class ChangeDecoder:
    """Changes of one topic. Compiled once; holds nothing but schemas met on the wire."""

    def __init__(self, spec: TopicSpec[Any]) -> None:
        """Raises ConfigError for a spec that can not work."""
        self.spec = spec
        encoding = spec.encoding
        self._max_bytes, self._max_depth = encoding.max_bytes, encoding.max_depth
        self._unwrapped, self._identity = encoding.unwrapped, encoding.replica_identity
        self.opener = Opener(encoding.max_bytes, encoding.max_depth, self._compile, "value")
        self._keys = Opener(encoding.max_bytes, encoding.max_depth, self._compile_key, "key")
        self._columns = {wire: column for column in self.opener.bare.rows.columns for wire in column.wires}
        self._key_types = {c.name: TypeAdapter(c.annotation) for c in self.opener.bare.rows.columns}
        self._exact = {c.name: c.annotation for c in self.opener.bare.rows.columns if c.annotation in (int, str)}
        self._mongo = "_id" in self._columns or "_id" in spec.key
        self._check = clock_check(spec.clock)

    def _compile(self, schema: dict[str, Any] | None) -> Plan:
        fields = schema.get("fields") if schema is not None else None
        rows = fields
        for entry in fields if isinstance(fields, list) else ():
            if isinstance(entry, dict) and entry.get("field") in ("after", "before") and entry.get("type") == "struct":
                rows = entry.get("fields")
        declared = from_schema(rows)
        return Plan(RowPlan(self.spec, "change", declared), declared)

    def _compile_key(self, schema: dict[str, Any] | None) -> RowPlan:
        return RowPlan(self.spec, "change", from_schema(schema.get("fields")) if schema is not None else None)

    def tombstone(self, record: RawRecord) -> Result[Change[Any]]:
        """A record without a value: the end of its key."""
        return Control("tombstone", self._key(record.key))

    def values(self, payload: Any, plan: Plan, record: RawRecord, event: CloudEvent | None) -> Result[Change[Any]]:
        """What one opened value comes to. Raises Bad."""
        if event is not None:
            payload = debezium(event, payload)
        if payload is None:
            return self.tombstone(record)
        if type(payload) is not dict:
            raise Bad("not-an-object", f"a change is a JSON object, not {short(payload)}")
        op, source = payload.get("op"), payload.get("source")
        enveloped = isinstance(op, str) and (isinstance(source, dict) or "after" in payload)
        if enveloped and op not in _ROW_OPS:
            return self._other_op(op)
        if enveloped and not self._unwrapped:
            return self._enveloped(cast(Op, op), payload, source if isinstance(source, dict) else {}, plan, record)
        control = self._control(payload, record)
        if control is not None:
            return control
        if self._unwrapped is False:
            raise Bad("not-an-envelope", "op and source are missing: is the topic flattened? Set encoding.unwrapped")
        return self._flat(payload, plan, record)

    @staticmethod
    def _other_op(op: Any) -> Control:
        if op == "t":
            return Control("truncate")
        if op == "m":
            return Control("logical-message")
        raise Bad("unknown-op", f"{short(op)} is none of r, c, u, d, t, m", "op")

    def _control(self, payload: dict[str, Any], record: RawRecord) -> Control | None:
        """Heartbeats, transaction markers and schema changes, by topic or shape."""
        get = payload.get
        if record.topic.startswith(HEARTBEAT_TOPIC) or (payload.keys() == {"ts_ms"} and "ts_ms" not in self._columns):
            return Control("heartbeat")
        if get("status") in ("BEGIN", "END") and "id" in payload and "event_count" in payload and "data_collections" in payload:
            return Control("transaction-marker")
        if "ddl" in payload and "databaseName" in payload and ("tableChanges" in payload or "source" in payload):
            return Control("schema-change")
        return None

    def _enveloped(self, op: Op, payload: dict[str, Any], source: dict[str, Any], plan: Plan, record: RawRecord) -> Result[Any]:
        position, place = position_of(source)
        after, before = payload.get("after"), payload.get("before")
        update = None
        if position.connector == "mongodb":
            update = payload.get("updateDescription", payload.get("patch"))
            if op == "u" and after is None:
                raise Bad(
                    "partial-update", "only the changed fields are there: set capture.mode=change_streams_update_full", "after"
                )
            after = mongo.document(after, self._max_bytes, self._max_depth, "after")
            before = mongo.document(before, self._max_bytes, self._max_depth, "before")
        return self._change(op, after, before, position, place, plan, record, payload.get("transaction"), update)

    def _flat(self, payload: dict[str, Any], plan: Plan, record: RawRecord) -> Result[Any]:
        """A flattened row. Without `__op` and `__deleted` it is an upsert, which is called an update: whoever watches
        columns then compares it with the row before, and a status written back decides nothing anew."""
        meta = {_bare(name): _header(value) for name, value in record.headers if name.startswith("__")} if record.headers else {}
        meta.update((_bare(name), value) for name, value in payload.items() if name.startswith("__"))
        op = meta.get("op")
        if op in ("t", "m"):
            return self._other_op(op)
        if meta.get("deleted") in ("true", True):
            op = "d"
        elif op is None:
            op = "u"
        elif not isinstance(op, str) or op not in _ROW_OPS:
            raise Bad("unknown-op", f"{short(op)} is none of r, c, u, d", "__op")
        meta.setdefault("connector", connector_of(meta))
        position, place = position_of(meta)
        after, before = (None, payload) if op == "d" else (payload, None)
        return self._change(cast(Op, op), after, before, position, place, plan, record, None, None)

    def _change(
        self, op: Op, after: Any, before: Any, position: SourcePosition, place: str, plan: Plan, record: RawRecord,
        transaction: Any, update: Any,
    ) -> Result[Change[Any]]:  # fmt: skip
        cleaned: list[str] = []
        missing: frozenset[str] = frozenset()
        row: BaseModel | None = None
        if op == "d":
            after = None
        elif type(after) is not dict:
            raise Bad("invalid-field", f"op {op} needs a row, not {short(after)}", "after")
        else:
            if op == "u" and any(mark in after.values() for mark in UNAVAILABLE):
                after, missing = self._without_unavailable(after)
            row = plan.rows.build(after, cleaned)
        key = self._key(record.key)
        if key is None:
            key = self._key_from_row(after if after is not None else before, plan.rows)
        event_ms = position.ts_ms
        if event_ms is not None and not MIN_MS <= event_ms <= MAX_MS:
            # Whoever keeps a time has 64 bits for it, whoever prints it four digits for its year.
            raise Bad(IMPLAUSIBLE, "the source's time lies outside the years 1 to 9999", "ts_ms")
        verdict = self._check(event_ms, record.timestamp)
        if verdict is not None:
            return verdict if isinstance(verdict, Fault) else Decoded((verdict,), tuple(cleaned))
        change: Change[Any] = Change(
            op, key, row, self._before(op, before, key, position, plan), position, event_ms, missing,
            event_id(place, position, op, key, transaction, update) if place else "",
            self._old_key(record.headers) if record.headers else None,
        )  # fmt: skip
        return Decoded((change,), tuple(cleaned))

    def _before(self, op: str, before: Any, key: Mapping[str, Any], position: SourcePosition, plan: Plan) -> BaseModel | None:
        """The old row where the source sent it. It is a help, not the fact: one that does not validate is None, not a fault."""
        if type(before) is not dict:
            return None
        if op == "d" and position.connector in ("postgresql", "") and self._identity != "full":
            columns = self.spec.key or tuple(key)
            if self._identity == "default" or only_placeholders(before, columns, plan.declared, bool(plan.declared)):
                return None
        try:
            return plan.rows.build(before, [])
        except Bad:
            return None

    def _without_unavailable(self, after: dict[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
        """The row without the values that the source did not send, and their names (the field's where the row has one)."""
        kept, missing = dict(after), set()
        for wire, value in after.items():
            if value not in UNAVAILABLE:
                continue
            column: Column | None = self._columns.get(wire)
            missing.add(wire if column is None else column.name)
            match "drop" if column is None else when_unavailable(column):
                case "null":
                    kept[wire] = None
                case "drop":
                    del kept[wire]
                case _:
                    raise Bad(
                        "value-unavailable", "the source did not send an unchanged TOAST value, and the row requires it: "
                        "set REPLICA IDENTITY FULL or declare the field optional", None if column is None else column.name,
                    )  # fmt: skip
        return kept, frozenset(missing)

    def _key(self, raw: bytes | None) -> dict[str, Any] | None:
        """The primary key columns of a record key; None without one. A key that is no JSON is the one key column as text."""
        if raw is None:
            return None
        try:
            value, rows = self._keys.open(raw)
        except Bad as bad:
            if bad.fault.reason in ("too-large", "too-deep") or len(self.spec.key) != 1 or raw[:1] == b"\x00":
                return None
            value, rows = raw.decode("utf-8", "replace"), self._keys.bare
        if value is None:
            return None
        if type(value) is not dict:
            if len(self.spec.key) != 1:
                return None
            value = {self.spec.key[0]: value}
        elif self._mongo and value.keys() == {"id"}:
            value = {self.spec.key[0] if len(self.spec.key) == 1 else "id": mongo.key_value(value["id"])}
        if len(value) == 1:
            ((wire, inner),) = value.items()
            if type(inner) is self._exact.get(wire):
                return value  # the common case: one column, already of its field's type
        return dict(self._key_column(wire, inner, rows) for wire, inner in value.items())

    def _key_column(self, wire: str, value: Any, rows: RowPlan) -> tuple[str, Any]:
        """A key column under its field's name, as the type that the row's field has, so that keys and rows compare.

        Raises Bad number-too-large alone: what else is wrong with it, the column stays as it came.
        """
        bounded(value, wire)
        try:
            name, found = rows.take(wire, value)
        except Bad:
            return wire, value
        if type(found) is self._exact.get(name) or found is None:
            pass
        elif (adapter := self._key_types.get(name)) is not None:
            try:
                found = adapter.validate_python(found)
            except ValidationError:
                found = value
        return (wire, found) if wire in self.spec.key else (name, found)

    def _key_from_row(self, row: Any, rows: RowPlan) -> dict[str, Any]:
        if type(row) is not dict:
            return {}
        found: dict[str, Any] = {}
        for wanted in self.spec.key:
            for wire in (wanted, *(w for w, c in self._columns.items() if c.name == wanted and w != wanted)):
                if wire in row:
                    found[wanted] = self._key_column(wire, row[wire], rows)[1]
                    break
        return found

    def _old_key(self, headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any] | None:
        """The key that a row had before its primary key was changed; the `c` of the new key carries it as a header."""
        for name, value in headers:
            if name == "__debezium.oldkey" and value is not None:
                if value.startswith(b"Struct"):  # Connect's text of a struct under some header converters
                    return self._struct_text(value)
                return self._key(value)
        return None

    def _struct_text(self, raw: bytes) -> dict[str, Any] | None:
        """`Struct{id=7,branch=x}`: only where no value can be mistaken for two."""
        match = _STRUCT.fullmatch(raw[:4096].decode("utf-8", "replace"))
        parts = [part.partition("=") for part in match.group(1).split(",")] if match else []
        if not parts or any(not equals for _, equals, _ in parts):
            return None
        return dict(self._key_column(name, value, self._keys.bare) for name, _, value in parts)


def _bare(name: str) -> str:
    return name[9:] if name.startswith("__source_") else name[2:]


def _header(value: bytes | None) -> Any:
    if value is None or len(value) > 256:
        return None
    text = value.decode("utf-8", "replace").strip('"')
    number = whole(text)
    return text if number is None else number
