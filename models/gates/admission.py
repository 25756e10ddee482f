"""Admission: which request may leave when, so that an endpoint's limits are used and not overrun. Pure; time is an argument.

Requests queue here and not at the endpoint, where each one too many costs a request. Three things hold one back: the pace
(requests and reserved tokens a minute, told or found out), a 429 just seen, and the requests in flight. Tokens are reserved for
the input and for all the output that a request may have, and settled against what was used when it ends.

Processes share an account without talking: an agent has the part of the limits that its weight and its part of all partitions
give it. What is found out is kept as what the whole account would be admitted, so that it stays true when shares move.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.gates.concurrency_limit import ConcurrencyLimit
from models.gates.gate import Ended
from models.gates.limit_finder import LimitFinder
from models.gates.pace import Pace
from models.gates.rate_headers import limits_hint, wait_hint

_SOON, _SOON_SECONDS = 0.25, 1.0
"""A request that waits here for no more than this part of its deadline, nor so many seconds, leaves "soon". What waits here when
an endpoint closes for the rest of a minute loses its deadline; what waits in front has all of it still before it."""
_FAILURES, _RECOVERY, _RECOVERY_BURST = 3, 10.0, 0.1
"""After so many failures in a row, and for so many seconds after the first answer since, so little of the pace may be saved up:
an endpoint that comes back is not met by what was saved while it was out.
"""
_DEADLINE = 4.0
"""Seconds taken for the deadline before the first request named one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one endpoint and model. `rpm` and `tpm` are those of the account, a minute; None: not told.

    `concurrency` is the most requests in flight of this process, `queue` how many may wait before there is no room, and
    `burst_seconds` how much of the pace may be saved up. With `lend`, what one agent leaves unused goes to others.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int = 64
    queue: int = 64
    burst_seconds: float = 1.0
    lend: bool = False


@dataclass(slots=True)
class AdmissionStats:
    """`waited_seconds` is the sum over admitted requests, `limited` the 429s seen; both since the start.

    The rest is as of now: limits a minute and for this process (None: none known), requests waiting and in flight, tokens
    reserved by those in flight; `told`: limits were configured.
    """

    admitted: int = 0
    waited_seconds: float = 0.0
    limited: int = 0
    requests_limit: float | None = None
    tokens_limit: float | None = None
    concurrency_limit: int = 0
    queue: int = 0
    in_flight: int = 0
    reserved_tokens: int = 0
    told: bool = False


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way. `again`: it came back from a 429. `state` is waiting, gone (it may leave, or has left), or over."""

    agent: str
    tokens: int
    again: bool = False
    asked_at: float = 0.0
    sent_at: float = 0.0
    probe: bool = False
    borrowed: bool = False
    scale: float = 1.0
    state: str = "waiting"


@dataclass(slots=True)
class _Queue:
    """Requests of one agent that wait, and its part of the limits. `given`: a share was named; `last`: the last one's tokens."""

    pace: Pace
    share: float = 1.0
    given: bool = False
    patience: float = _DEADLINE
    tokens: int = 0
    last: int = 0
    waiting: deque[Ticket] = field(default_factory=deque)


class Admission:
    """One object for an endpoint and model, for all agents of a process.

    `ask`; then `grant` until the ticket is among those granted, then `ended` once; or `drop` while it waits. `next_at` says when
    `grant` may have more to give. `soon` is the part of a deadline that may pass here.
    """

    def __init__(self, limits: Limits, now: float, *, soon: float = _SOON) -> None:
        self.limits = limits
        self.finder = LimitFinder(now, (_a_second(limits.rpm), _a_second(limits.tpm)))
        self.concurrency = ConcurrencyLimit(limits.concurrency)
        self.in_flight = 0
        self._waiting = 0
        self._soon = soon
        self._stats = AdmissionStats(told=self.finder.told)
        self._lines: dict[str, _Queue] = {}
        self._all = Pace(self.finder.requests, self.finder.tokens, limits.burst_seconds, now)
        self._ours = 1.0
        self._version = -1
        self._paced = False
        self._failures = 0
        self._careful_until = 0.0

    @property
    def stats(self) -> AdmissionStats:
        """The counters, brought up to date."""
        stats, finder = self._stats, self.finder
        stats.requests_limit = None if math.isinf(finder.requests) else finder.requests * self._ours * 60
        stats.tokens_limit = None if math.isinf(finder.tokens) else finder.tokens * self._ours * 60
        stats.concurrency_limit, stats.queue, stats.in_flight = self.concurrency.limit, self._waiting, self.in_flight
        return stats

    def share(self, agent: str, fraction: float, now: float) -> None:
        """The part of the account's limits that this agent has here, 0 to 1. One that was never named has all that is ours."""
        queue = self._queue(agent, now)
        queue.share, queue.given = max(0.0, min(1.0, fraction)), True
        self._repace(now)

    # ---- the way of a request -----------------------------------------------------------------------------------------
    def ask(self, ticket: Ticket, now: float, deadline: float | None = None) -> None:
        """Queue it: behind the others of its agent, or before them where the endpoint had refused it."""
        queue = self._queue(ticket.agent, now)
        ticket.asked_at = now
        if deadline is not None:
            queue.patience = max(0.0, deadline - now)
        if ticket.again:
            queue.waiting.appendleft(ticket)
        else:
            queue.waiting.append(ticket)
        queue.tokens += ticket.tokens
        queue.last = ticket.tokens
        self._waiting += 1

    def drop(self, ticket: Ticket) -> None:
        """It does not want to wait any longer. Nothing happens to one that was granted or is over."""
        if ticket.state == "waiting":
            queue = self._lines[ticket.agent]
            queue.waiting.remove(ticket)
            self._out(queue, ticket, "over")

    def grant(self, now: float) -> list[Ticket]:
        """Those that may leave now; among agents, the one that has waited longest first."""
        granted: list[Ticket] = []
        finder = self.finder
        if now < self._careful_until:
            for pace in (self._all, *(queue.pace for queue in self._lines.values())):
                pace.trim(_RECOVERY_BURST, now)
        finder.grow(now, self._paced)
        self._paced = False
        while self._waiting:
            if finder.wait(now) > 0:
                break
            if finder.version != self._version:
                self._repace(now)
            if self.in_flight >= self.concurrency.limit:
                self.concurrency.held_back()
                break
            queue = self._next(now)
            if queue is None:
                self._paced = True
                break
            granted.append(self._go(queue, now))
        return granted

    def _next(self, now: float) -> _Queue | None:
        """Whose turn it is."""
        queues = self._lines
        if len(queues) == 1:
            (queue,) = queues.values()
            head = queue.waiting[0]
            return queue if self._all.wait(head.tokens, now) <= 0 and queue.share > 0 else None
        first, borrower = None, None
        for queue in queues.values():
            if not queue.waiting or queue.share <= 0:
                continue
            head = queue.waiting[0]
            if queue.pace.wait(head.tokens, now) <= 0:
                if first is None or _before(head, first.waiting[0]):
                    first = queue
            elif borrower is None or _before(head, borrower.waiting[0]):
                borrower = queue
        chosen = first if first is not None else borrower if self.limits.lend else None
        if chosen is None or self._all.wait(chosen.waiting[0].tokens, now) > 0:
            return None
        chosen.waiting[0].borrowed = chosen is borrower
        return chosen

    def _go(self, queue: _Queue, now: float) -> Ticket:
        ticket = queue.waiting.popleft()
        self._out(queue, ticket, "gone")
        self._all.take(ticket.tokens, now)
        if not ticket.borrowed:
            queue.pace.take(ticket.tokens, now)
        if now <= ticket.asked_at and not self._waiting:
            self.finder.idle(now)
        ticket.sent_at, ticket.scale = now, 1 / self._ours if self._ours else 1.0
        ticket.probe = self.finder.sent(ticket.tokens, ticket.scale, now)
        self.in_flight += 1
        stats = self._stats
        stats.admitted += 1
        stats.waited_seconds += now - ticket.asked_at
        stats.reserved_tokens += ticket.tokens
        return ticket

    def ended(self, ticket: Ticket, ended: Ended, now: float) -> None:
        """A granted request is over: its place is free, what it did not use is given back. Once for each."""
        ticket.state = "over"
        self.in_flight -= 1
        self._stats.reserved_tokens -= ticket.tokens
        self._learn_failure(ended, now)
        if ended.kind == "limited":
            self._limited(ticket, ended, now)
        elif ended.kind == "unsent":
            self._give_back(ticket, ticket.tokens, now, requests=1.0)
            self.finder.unsent(ticket.tokens, ticket.scale, now, ticket.probe)
        else:
            self.finder.accepted(now, ticket.probe)
            if ended.tokens is not None:
                unused = ticket.tokens - ended.tokens.input - ended.tokens.output
                self._give_back(ticket, unused, now)
                self.finder.settled(unused, ticket.scale)
                if ended.kind == "served":
                    self.concurrency.served(ended.seconds, ended.tokens.output, now)
        if ended.headers and not self._stats.told:
            self._heed(ended.headers)

    def _learn_failure(self, ended: Ended, now: float) -> None:
        if ended.kind in ("unavailable", "timeout", "protocol"):
            self._failures += 1
            if self._failures >= _FAILURES:
                self._careful_until = math.inf
        elif ended.kind == "served":
            self._failures = 0
            self._careful_until = min(self._careful_until, now + _RECOVERY)

    def _limited(self, ticket: Ticket, ended: Ended, now: float) -> None:
        self._stats.limited += 1
        self._give_back(ticket, ticket.tokens, now)  # the endpoint took none; it may well have counted the request
        hint = ended.retry_after or wait_hint(ended.headers)
        if self.finder.limited(ticket.tokens, ticket.scale, ticket.sent_at, now, ticket.probe, hint):
            self.concurrency.limited(now)
            self._all.drain(now)
            for queue in self._lines.values():
                queue.pace.drain(now)

    def _heed(self, headers: Mapping[str, str]) -> None:
        requests, tokens = limits_hint(headers)
        if requests is not None or tokens is not None:
            self.finder.hint(requests, tokens)

    # ---- what others look at ------------------------------------------------------------------------------------------
    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiting

    def next_at(self, now: float) -> float | None:
        """When `grant` may have more to give than now; None: only after a request has ended, or nobody waits."""
        if not self._waiting or self.in_flight >= self.concurrency.limit:
            return None
        wait = math.inf
        for queue in self._lines.values():
            if queue.waiting and queue.share > 0:
                wait = min(wait, self._wait(queue, queue.waiting[0].tokens, now))
        wait = max(self.finder.wait(now), wait)
        return None if math.isinf(wait) else now + wait

    def _wait(self, queue: _Queue, tokens: float, now: float, requests: float = 1.0) -> float:
        """Seconds until the pace lets the last of so many leave."""
        if len(self._lines) == 1 or self.limits.lend:
            return self._all.wait(tokens, now, requests)
        return max(queue.pace.wait(tokens, now, requests), self._all.wait(tokens, now, requests))

    def until_room(self, agent: str, now: float, coming: int = 0) -> float:
        """Seconds until a request of this agent asked then would leave soon; 0.0: now, infinity: nobody can tell yet.

        `coming` requests of it are on their way here and will be ahead; each is taken to be like the last one that came.
        """
        queue = self._queue(agent, now)
        waiting = self._waiting + coming
        if queue.share <= 0 or waiting >= self.limits.queue:
            return math.inf
        if self.in_flight + waiting >= self.concurrency.limit + max(1, self.concurrency.limit // 4):
            return math.inf
        ahead, tokens = len(queue.waiting) + coming, float(queue.tokens + coming * queue.last)
        wait = self.finder.wait(now) + self._wait(queue, tokens if ahead else 1.0, now, ahead + 1.0)
        return max(0.0, wait - min(_SOON_SECONDS, self._soon * queue.patience))

    # ---- parts --------------------------------------------------------------------------------------------------------
    def _out(self, queue: _Queue, ticket: Ticket, state: str) -> None:
        ticket.state = state
        queue.tokens -= ticket.tokens
        self._waiting -= 1

    def _give_back(self, ticket: Ticket, tokens: float, now: float, requests: float = 0.0) -> None:
        self._all.give_back(tokens, now, requests)
        if not ticket.borrowed:
            self._lines[ticket.agent].pace.give_back(tokens, now, requests)

    def _queue(self, agent: str, now: float) -> _Queue:
        queue = self._lines.get(agent)
        if queue is None:
            queue = self._lines[agent] = _Queue(Pace(0.0, 0.0, self.limits.burst_seconds, now))
            self._repace(now)
        return queue

    def _repace(self, now: float) -> None:
        """Bring every agent's pace to its part of what may be asked now."""
        self._version = self.finder.version
        given = [queue.share for queue in self._lines.values() if queue.given]
        self._ours = min(1.0, sum(given)) if len(given) == len(self._lines) else 1.0
        requests, tokens = self.finder.requests, self.finder.tokens
        self._all.change(requests * self._ours, _part(tokens, self._ours), now)
        for queue in self._lines.values():
            queue.pace.change(requests * queue.share, _part(tokens, queue.share), now)


def _before(one: Ticket, other: Ticket) -> bool:
    """Whether it goes first: those that came back from a 429, then who has waited longest."""
    return (not one.again, one.asked_at) < (not other.again, other.asked_at)


def _part(whole: float, fraction: float) -> float:
    return whole * fraction if fraction > 0 else 0.0


def _a_second(a_minute: int | None) -> float:
    return math.inf if a_minute is None else a_minute / 60
