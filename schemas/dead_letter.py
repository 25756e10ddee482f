"""DeadLetter: an input record that could not be decided, kept byte for byte, with the reason and its coordinates in headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.wire import Wire

SCHEMA = "headrace.dead-letter.v1"
Stage = Literal["read", "decode", "clean", "state", "join", "features", "score", "decide", "publish"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one record is bad. `reason` is a short stable code, `field` the path of the offending field, `detail` for a person.

    `detail` never quotes more than a few characters of a value, and nothing of a column that is Protected: the headers of dead
    letters are shown in more places than the source.
    """

    stage: Stage
    reason: str
    detail: str = ""
    field: str | None = None

    def __str__(self) -> str:
        where = f" at {self.field}" if self.field else ""
        return f"{self.stage}: {self.reason}{where}: {self.detail}"


class DeadLetter(Wire):
    """What the headers `headrace_*` of a dead letter say. The record's own key, value and headers are kept as they came.

    `truncated` is true when the value did not fit the dead letter topic: then the record's value is only the head of the
    original, and `input_hash` and `value_bytes` say what the whole was. `run` is part of the id; null in letters older than it.
    `escaped_headers` are the places, from 0, with commas between, of headers of the record whose names were no UTF-8: there each
    byte that is none stands as backslash, x and two hexadecimal digits, and each backslash of the name as two. Null without any.
    """

    schema_: str = SCHEMA
    id: str
    agent: str
    version: int
    run: str | None = None
    stage: Stage
    reason: str
    field: str | None = None
    detail: str = ""
    topic: str
    partition: int
    offset: int
    timestamp: int | None = None
    part: int = 0
    parts: int = 1
    input_hash: str
    value_bytes: int = 0
    truncated: bool = False
    escaped_headers: str | None = None
    at: str
