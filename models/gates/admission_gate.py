"""AdmissionGate: admission as a gate: requests wait in the event loop, and one timer wakes those whose turn it is.

It is the last gate before a request leaves. One that would leave with clearly less time than such requests take
(models/gates/usual_time.py) does not leave: it would be cut off, and paid for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial

from models.gates.admission import Admission, AdmissionStats, Limits, Ticket
from models.gates.arrival import arrived
from models.gates.gate import Asking, Ended, Leave, Refused
from models.gates.usual_time import UsualTime

_TICK = 0.001
_LOOK = 1.0
"""Seconds between looks for room where neither a time nor the end of a request promises it: the loop's clock may have stood."""


class AdmissionGate:
    """A models.gates.gate.Gate and a models.chat.line.Pacer: one for each endpoint and model, for all agents of the process.

    `clock` is the running loop's time unless given; deadlines are in it. To be used in one event loop.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] | None = None) -> None:
        self.limits = limits
        self._clock = clock
        self._made: Admission | None = None
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._tell: dict[str, Callable[[], None]] = {}
        self._full: set[str] = set()
        self.usual = UsualTime()

    @property
    def used(self) -> bool:
        """Whether anything has been asked of it; before, there is no `core`."""
        return self._made is not None

    @property
    def stats(self) -> AdmissionStats:
        """Counters and what the limits are now."""
        return self.core.stats

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Wait for a turn. Raises TimeoutError at the deadline, or Refused as soon as the time left is known not to suffice."""
        core, now = self.core, self._now()
        ticket = Ticket(asking.agent, asking.tokens, asking.again)
        core.ask(ticket, now, deadline)
        arrived()
        if now >= deadline:
            core.drop(ticket)
            raise TimeoutError
        usual, kind = self.usual, (asking.agent, asking.output_tokens)
        tries = now + usual.least(*kind) > deadline and usual.may_try(*kind, now)
        latest = deadline if tries else deadline - usual.least(*kind)
        if now > latest:
            core.drop(ticket)
            raise self._too_late(asking, deadline)
        self._grant(now)
        if ticket.state == "waiting":
            turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout_at(latest):
                    await turn
                # Meanwhile more may be known of how long it takes.
                if not tries and deadline - self._now() < usual.least(*kind):
                    raise TimeoutError
            except TimeoutError:
                self._give_up(ticket)
                raise self._too_late(asking, deadline) from None
            except BaseException:
                self._give_up(ticket)
                raise
        return partial(self._leave, ticket, asking.output_tokens)

    def share(self, agent: str, fraction: float) -> None:
        """The part of the account's limits that the agent may have, 0 to 1: its weight times its part of all partitions."""
        now = self._now()
        self.core.share(agent, fraction, now)
        self._grant(now)

    def room(self, agent: str, coming: int = 0) -> bool:
        """Whether a request of this agent would leave soon, behind `coming` others of it that have not come here yet.

        Who is told no is told when there is room again; where it is only for what is coming, it is when that has come.
        """
        now = self._now()
        there = self.core.until_room(agent, now, coming) <= 0
        if not there and (not coming or self.core.until_room(agent, now) > 0):
            self._full.add(agent)
            self._arm(now)
        return there

    def on_room(self, agent: str, tell: Callable[[], None]) -> None:
        """Call `tell`, in the event loop, when there is room again after `room` said no. One listener for each agent."""
        self._tell[agent] = tell

    def quiet(self, seconds: float) -> bool:
        """Whether the requests that may be in flight have not been cut for so long, for slow answers or a 429."""
        return self._now() - self.core.concurrency.shrank_at > seconds

    def _too_late(self, asking: Asking, deadline: float) -> Exception:
        """Of a request that came back from a 429 nothing of this is told: it was the rate that held it up."""
        least = self.usual.least(asking.agent, asking.output_tokens)
        if asking.again or not least:
            return TimeoutError()
        left = max(0.0, deadline - self._now())
        return Refused("timeout", f"with {left:.1f} s left it was not sent: such a request takes {least:.1f} s at least")

    def _leave(self, ticket: Ticket, size: int, ended: Ended) -> None:
        if ticket.state == "over":
            raise RuntimeError("ending a request that has ended already")
        if ended.kind == "served":
            self.usual.served(ticket.agent, size, ended.seconds)
        now = self._now()
        self.core.ended(ticket, ended, now)
        self._grant(now)

    def _give_up(self, ticket: Ticket) -> None:
        """Nobody waits for this turn any longer; if it came in this very moment, it is another's."""
        self._turns.pop(ticket, None)
        now = self._now()
        if ticket.state == "waiting":
            self.core.drop(ticket)
        else:
            self.core.ended(ticket, Ended("unsent"), now)
        self._grant(now)

    def _grant(self, now: float) -> None:
        core = self.core
        if core.waiting():
            for ticket in core.grant(now):
                turn = self._turns.pop(ticket, None)
                if turn is not None and not turn.done():
                    turn.set_result(None)
        if self._full:
            self._say_room(now)
        if self._full or core.waiting():
            self._arm(now)

    def _say_room(self, now: float) -> None:
        for agent in tuple(self._full):
            if self.core.until_room(agent, now) <= 0:
                self._full.discard(agent)
                if (tell := self._tell.get(agent)) is not None:
                    asyncio.get_running_loop().call_soon(tell)

    def _arm(self, now: float) -> None:
        """One timer, for the next turn or the next room, whichever comes first."""
        core = self.core
        due = core.next_at(now)
        at = math.inf if due is None else due
        for agent in self._full:
            wait = core.until_room(agent, now)
            at = min(at, now + (wait if not math.isinf(wait) else _LOOK))
        if math.isinf(at) or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_at = at
        self._timer = loop.call_later(max(_TICK, at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._grant(self._now())

    @property
    def core(self) -> Admission:
        """The mechanism itself."""
        if self._made is None:
            self._made = Admission(self.limits, self._now())
        return self._made

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()
