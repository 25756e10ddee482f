"""Change[R]: one row change, whatever database and envelope it came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from schemas.values import value

R = TypeVar("R", bound=BaseModel)
Op = Literal["r", "c", "u", "d"]


@value
class SourcePosition:
    """Where in its database a change was written.

    `order` compares positions of one source (larger is later) and is empty where the source has none; `ts_ms` is the
    database's own commit time in epoch milliseconds.
    """

    connector: str = ""
    name: str = ""
    db: str = ""
    schema: str = ""
    table: str = ""
    ts_ms: int | None = None
    snapshot: bool = False
    order: tuple[int, ...] = ()


@value
class Change(Generic[R]):
    """One row change.

    `key` holds the primary key columns (empty for a table without one). `before` is None when the source did not send
    it or sent placeholders only (PostgreSQL under REPLICA IDENTITY DEFAULT). `unavailable` names columns whose stored
    value the source did not send (unchanged TOAST); they are None in `after`. `event_id` is equal for a repeated event.
    """

    op: Op
    key: Mapping[str, Any]
    after: R | None
    before: R | None = None
    source: SourcePosition = SourcePosition()
    event_ms: int | None = None
    unavailable: frozenset[str] = frozenset()
    event_id: str = ""
    key_changed_from: Mapping[str, Any] | None = None

    @property
    def row(self) -> R:
        """The row as it now is. Raises LookupError for a delete."""
        if self.after is None:
            raise LookupError("a deleted row has no values, only its key")
        return self.after
