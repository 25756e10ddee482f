"""From the records of our topics to facts. Total: what can not be read is a sentence that says why, never an exception."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError

from schemas.audit import Call, Judgement
from schemas.decision import Decision
from schemas.identity import input_hash
from schemas.manifest import Manifest
from schemas.receipt import Receipt
from schemas.wire import Wire
from topics.record import RawRecord
from topics.verify.calls import CallFact
from topics.verify.facts import Outcome

Read = TypeVar("Read", bound=Wire)
PREFIX = "headrace_"
"""Begins the headers in which a dead letter says what it is."""
MOST_DIGITS = 19
_NEAR = 256
"""Bytes at the beginning of a judgement among which its decision's id stands."""


def _read(model: type[Read], record: RawRecord) -> Read | str:
    try:
        return model.model_validate_json(record.value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"not a {model.__name__.lower()}: {'.'.join(str(part) for part in first['loc'])} {first['msg']}"


def receipt(record: RawRecord) -> Receipt | str:
    """The receipt in a record."""
    return _read(Receipt, record)


def whole_call(record: RawRecord) -> Call | str:
    """All that a call says, for whoever tells of it."""
    return _read(Call, record)


def judgement(record: RawRecord) -> Judgement | str:
    """All that a judgement says."""
    return _read(Judgement, record)


def manifest(record: RawRecord) -> Manifest | str:
    """All that a manifest says."""
    return _read(Manifest, record)


def decision_body(record: RawRecord) -> Decision | str:
    """All that a decision says; verification itself needs less of it, see `decision`."""
    return _read(Decision, record)


def decision(record: RawRecord) -> Outcome | str:
    """The decision in a record, as far as verification needs it."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError as error:
        return f"not a decision: {error}"
    source = body.get("source") if isinstance(body, dict) else None
    if not isinstance(source, dict):
        return "not a decision: it has no source"
    made = _outcome(record, {**body, **source, "topic": source.get("topic")})
    if isinstance(made, str):
        return made
    call = body.get("call_id")
    return made._replace(call_id=call if isinstance(call, str) else None, label=_label(record, body))


def _label(record: RawRecord, body: dict[str, Any]) -> str | None:
    """What of a decision's key and headers is not what its body says: the digest is of the value, and these are beside it."""
    subject = body.get("subject")
    name = subject.get("id") if isinstance(subject, dict) else None
    said = {"ce_id": body.get("id"), "ce_subject": name}
    wanted = {header: text.encode(errors="replace") for header, text in said.items() if isinstance(text, str)}
    if "ce_subject" in wanted and record.key != wanted["ce_subject"]:
        return "its key is not its subject's id"
    wrong = sorted({header for header, value in record.headers if header in wanted and value != wanted[header]})
    return f"its header {wrong[0]} is not what its body says" if wrong else None


def dead_letter(record: RawRecord) -> Outcome | str:
    """The dead letter in a record. Headers that the input brought along come first, so the last of a name is ours."""
    said: dict[str, Any] = {}
    for name, value in record.headers:
        if name.startswith(PREFIX):
            said[name[len(PREFIX) :]] = (value or b"").decode(errors="replace")  # one that the input brought along may have none
    for name in ("partition", "offset", "part", "parts"):
        text = said.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
            said[name] = int(text)
    said.setdefault("run", None)
    return _outcome(record, said)


_SAYS = (
    "kind", "subject", "features", "answer", "rules", "proposed_outcome", "outcome", "overrides", "review", "score", "result",
)  # fmt: skip
"""Of a decision or a judgement, what a repeat is to say again; its times, calls and models may be others."""


def content(value: bytes) -> int:
    """A hash of what a decision or a judgement says, 0 where it can not be read."""
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        return 0
    if not isinstance(body, dict):
        return 0
    return hash(orjson.dumps([body.get(name) for name in _SAYS], option=orjson.OPT_SORT_KEYS))


def judgement_label(record: RawRecord) -> str | None:
    """What of a judgement's key is not what its body says."""
    value, key = record.value or b"", record.key or b""
    if value.find(b'"decision_id":"%s"' % key, 0, _NEAR) >= 0:
        return None  # as all of ours: nothing need be parsed
    id = judgement_id(value)
    return "its key is not the id of its decision" if id and id.encode(errors="replace") != key else None


def judgement_id(value: bytes) -> str:
    """The decision that a judgement is about; empty where it can not be read."""
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        return ""
    id = body.get("decision_id") if isinstance(body, dict) else None
    return id if isinstance(id, str) else ""


def call(record: RawRecord) -> CallFact | str:
    """The call in a record."""
    made = _read(Call, record)
    if isinstance(made, str):
        return made
    return CallFact(
        record.offset, record.partition, made.call_id, made.worker, made.seq or 0, made.prev, made.unpublished,
        sha256(record.value or b"").hexdigest(),
    )  # fmt: skip


def altered(record: RawRecord, outcome: Outcome) -> bool:
    """Whether a dead letter holds other bytes than its input hash says; one that was cut to fit says so and is exempt."""
    last = dict(record.headers).get(f"{PREFIX}truncated", b"false")
    return last.lower() not in (b"true", b"1") and input_hash(record.value) != outcome.input_hash


def _outcome(record: RawRecord, said: dict[str, Any]) -> Outcome | str:
    texts = [said.get(name) for name in ("id", "agent", "topic", "input_hash")]
    numbers = [said.get(name) for name in ("partition", "offset", "part", "parts")]
    run = said.get("run")
    if not all(isinstance(text, str) for text in texts) or not (run is None or isinstance(run, str)):
        return "not an outcome: id, agent, run, source topic and input hash are to be texts"
    if not all(type(number) is int for number in numbers):
        return "not an outcome: source partition, offset, part and parts are to be whole numbers"
    made, agent, topic, value_hash = texts
    partition, offset, part, parts = numbers
    return Outcome(record.offset, made, agent, run, topic, partition, offset, value_hash, part, parts, record.key)  # type: ignore[arg-type]  # both lists were checked element by element above
