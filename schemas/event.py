"""Event[R]: a fact that somebody published as plain JSON or as a CloudEvent; neither a row change nor a measurement."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

from schemas.values import value

R = TypeVar("R", bound=BaseModel)


@value
class Event(Generic[R]):
    """One event. `event_ms` is epoch milliseconds from the event itself; `event_id` its own id, or empty."""

    row: R
    event_ms: int | None = None
    event_id: str = ""
    subject: str = ""
