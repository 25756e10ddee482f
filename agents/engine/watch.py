"""Whether an agent that should be reading asks for records at all: what neither lag nor an exception tells of a loop that hangs.

A thread looks, since a loop that is blocked (by an agent's function, for one) could not. Asked for records is also by an idle
topic and while all bounds are met: the transport's fetch loop turns at least once a second whenever it owns partitions and no
rebalance or drain is under way, and only then is it expected to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from topics.transport.stats import TransportStats

log = logging.getLogger(__name__)
EVERY = 1.0
"""Seconds between two looks."""
ASLEEP = 5.0
"""Two looks further apart than this: the process did not run in between (SIGSTOP, a machine that slept), nor did its loop."""
REPEAT = 300.0
"""Seconds until the same silence is told again."""
LEAST = 10.0


def patience(session_timeout: float) -> float:
    """Seconds without a poll that are too long: half of the group's session timeout, and no less than a loaded machine needs."""
    return max(LEAST, session_timeout / 2)


class Reader(Protocol):
    """What is asked of a transport's runtime (topics/transport/assignment.py), from any thread."""

    stats: TransportStats

    @property
    def running(self) -> bool:
        """False during rebalances, drains and after the end."""
        ...


class PollWatch:
    """One agent's. `clock` is the one that `stats.last_poll` is taken from, `limit` seconds."""

    def __init__(self, agent: str, reader: Reader, limit: float, clock: Callable[[], float]) -> None:
        self._agent = agent
        self._reader = reader
        self._limit = limit
        self._clock = clock
        self._since: float | None = None
        self._looked: float | None = None
        self._told: float | None = None

    def silence(self) -> float:
        """Seconds since records were last asked for, as far as they should have been; 0 where they need not."""
        since = self._since
        if since is None or not self._expected():
            return 0.0
        return max(0.0, self._clock() - max(since, self._reader.stats.last_poll))

    def look(self) -> None:
        """Note how it stands, and log at error level, seldom, that it stands still. To be called every `EVERY` seconds."""
        now = self._clock()
        slept = self._looked is not None and now - self._looked > ASLEEP
        self._looked = now
        if not self._expected():
            self._since = self._told = None
            return
        if self._since is None or slept:
            self._since = now
        silent = self.silence()
        if silent <= self._limit:
            if self._told is not None:
                log.warning("agent %s asks for records again", self._agent)
            self._told = None
        elif self._told is None or now - self._told >= REPEAT:
            self._told = now
            log.error(
                "agent %s has not asked for records for %.0f s, though it owns %d partitions and no rebalance or drain is on: "
                "its loop hangs or is blocked; what is not committed will be read again",
                self._agent, silent, len(self._reader.stats.owned),
            )  # fmt: skip

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """See agents.engine.metrics.Source."""
        yield "poll_age_seconds", (), self.silence()

    def _expected(self) -> bool:
        return self._reader.running and bool(self._reader.stats.owned)


class Watching:
    """The thread that looks at all agents of a process."""

    def __init__(self, watches: Sequence[PollWatch]) -> None:
        self._watches = watches
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Safe to call twice, and without a start."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            for watch in self._watches:
                watch.look()
