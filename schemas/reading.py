"""Reading[R]: what one device measured at one time, whatever shape it came in."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

from schemas.values import value

R = TypeVar("R", bound=BaseModel)


@value
class Reading(Generic[R]):
    """One measurement of one device.

    `event_ms` is the device's own time in epoch milliseconds, None when it sent none. `event_id` is equal for a
    repeated event and empty where neither an id nor device and time are known.
    """

    device: str
    row: R
    event_ms: int | None = None
    event_id: str = ""
