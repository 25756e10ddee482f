"""A brake on logs that repeat: while a broker is away, aiokafka logs some hundred errors a second, all alike (measured)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

MOST_KINDS = 512
"""Kinds of messages that are told apart; past it the oldest is forgotten and may be logged once more."""
KIND = "headrace_kind"


class Repeats(logging.Filter):
    """Lets a kind of message of the named libraries through once in `seconds`, and then says how many were held back.

    A kind is logger, level and format string, or what the record's attribute KIND says in its place: the arguments (a port, a
    node, an error) change, the news does not. Messages of other loggers always pass. Put it on a handler: filters of a logger do
    not see what its children log.
    """

    def __init__(
        self, libraries: tuple[str, ...] = ("aiokafka", "faust", "mode"), *, seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__()
        self._libraries = frozenset(libraries)
        self._seconds = seconds
        self._clock = clock
        self._kinds: dict[tuple[str, int, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it. Adds the number of those held back to the message that passes after them."""
        if record.name.partition(".")[0] not in self._libraries:
            return True
        text = record.msg if isinstance(record.msg, str) else type(record.msg)
        kind = (record.name, record.levelno, getattr(record, KIND, text))
        now = self._clock()
        again, held = self._kinds.get(kind, (now, 0))
        if now < again:
            self._kinds[kind] = (again, held + 1)
            return False
        self._kinds.pop(kind, None)
        self._kinds[kind] = (now + self._seconds, 0)
        if len(self._kinds) > MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        if held:
            # The arguments are put in first: they may hold percent signs.
            record.msg, record.args = f"{record.getMessage()} (and {held} like it)", ()
        return True
