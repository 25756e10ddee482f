"""AdmissionGate: admission as a gate: requests wait for their turn in the event loop, one timer wakes those whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from models.admission import Admission, AdmissionStats, Limits, Ticket
from models.gate import Asking, Ended, Leave


class AdmissionGate:
    """A models.gate.Gate and models.line.Pacer. It may be made before the loop runs: it takes the time when first asked."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._made: Admission | None = None
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: dict[str, Callable[[], None]] = {}
        self._full: set[str] = set()

    @property
    def used(self) -> bool:
        """Whether anything has been asked of it; before, there is no `core`."""
        return self._made is not None

    @property
    def core(self) -> Admission:
        """The mechanism itself."""
        if self._made is None:
            self._made = Admission(self._limits, _now())
        return self._made

    @property
    def stats(self) -> AdmissionStats:
        """Counters since the start."""
        return self.core.stats

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Wait for a turn. Raises TimeoutError at the deadline."""
        ticket = Ticket(asking.agent, asking.tokens, asking.again)
        self.core.ask(ticket, _now())
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._grant()
        if not turn.done():
            try:
                async with asyncio.timeout_at(deadline):
                    await turn
            except BaseException:
                self._give_up(ticket, turn)
                raise
        return partial(self._leave, ticket)

    def share(self, agent: str, fraction: float) -> None:
        """See models.line.Pacer."""
        self.core.share(agent, fraction, _now())
        self._grant()

    def room(self, agent: str) -> bool:
        """See models.line.Pacer. Whoever is told no is told when there is room again."""
        there = self.core.room(agent, _now())
        if not there:
            self._full.add(agent)
            self._arm()
        return there

    def on_room(self, agent: str, tell: Callable[[], None]) -> None:
        """See models.line.Pacer."""
        self._listeners[agent] = tell

    def _leave(self, ticket: Ticket, ended: Ended) -> None:
        self.core.ended(ticket, ended, _now())
        self._grant()

    def _give_up(self, ticket: Ticket, turn: asyncio.Future[None]) -> None:
        self._waiting.pop(ticket, None)
        if turn.done() and not turn.cancelled():
            # Its turn came in the same round of the loop: it has not left, and its place is another's.
            self.core.ended(ticket, Ended("unsent"), _now())
        else:
            self.core.drop(ticket)
        self._grant()

    def _grant(self) -> None:
        for ticket in self.core.grant(_now()):
            turn = self._waiting.pop(ticket, None)
            if turn is None or turn.done():
                self.core.ended(ticket, Ended("unsent"), _now())
            else:
                turn.set_result(None)
        self._tell()
        self._arm()

    def _tell(self) -> None:
        for agent in tuple(self._full):
            if self.core.room(agent, _now()):
                self._full.discard(agent)
                tell = self._listeners.get(agent)
                if tell is not None:
                    asyncio.get_running_loop().call_soon(tell)

    def _arm(self) -> None:
        """One timer: when a turn may come, or a look whether there is room again where nobody waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = _now()
        at = self.core.next_at(now)
        if self._full:
            look = now + max(0.01, min(0.5, self.core.finder.may_go(now)))
            at = look if at is None else min(at, look)
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(max(at, now + 0.001), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._grant()


def _now() -> float:
    return asyncio.get_running_loop().time()
