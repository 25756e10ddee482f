"""Arrival: whoever starts a call learns that its first request has come to the queue of its endpoint, through all in between.

Until then the call is in no queue and in nobody's count. Many calls started in one moment would each find room, since none of
them has come to the queue yet: so whoever starts them counts those that are still coming (models.contract.Paced).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

_TELL: ContextVar[Callable[[], None] | None] = ContextVar("headrace_arrival", default=None)


def on_arrival(tell: Callable[[], None]) -> None:
    """From now on `tell` is called for each request of this task, and of the tasks that it starts, that comes to its queue."""
    _TELL.set(tell)


def arrived() -> None:
    """A request of this task has come to its queue."""
    tell = _TELL.get()
    if tell is not None:
        tell()


class Coming:
    """Counts calls that were started and have not come to a queue yet. `tell` is called whenever one of them no longer counts."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.count = 0
        self._tell = tell

    def start(self) -> Callable[[], None]:
        """One more is coming, until what is returned is called: when it has come, or is over without. Safe to call again."""
        self.count += 1
        here = False

        def arrived() -> None:
            nonlocal here
            if not here:
                here = True
                self.count -= 1
                self._tell()

        return arrived
