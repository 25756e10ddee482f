"""Admission: which request may leave when, so that an endpoint's limits are used and not overrun. Pure; time is an argument.

Requests queue here, not at the endpoint: a 429 costs a request and, retried blindly, the next ones too. Three bounds stand before
each: the pace (requests and reserved tokens a minute, told or found out), the 429s just seen, and the requests in flight. Tokens
are reserved for input and the whole output that a request may have, and settled when it ends.

Several processes share one account without talking: each agent has the part of the limits that its configuration and its part of
all partitions give it. What the limits of an endpoint nobody was told of are, each process finds out for itself.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from models.bucket import Bucket
from models.concurrency import Concurrency
from models.gate import Ended
from models.rate_finder import MOST_RATE, RateFinder

_ROOM_SECONDS = 0.5
"""A queue that would take longer than this is full: what does not leave soon had better wait where its deadline does not run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one endpoint and model. `rpm` and `tpm` are those of the account, a minute; None: not told.

    `concurrency` is the most requests in flight of this process, `queue` the most that wait, `burst_seconds` how much of the pace
    may be saved up.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int = 64
    queue: int = 64
    burst_seconds: float = 0.25


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way. `again`: it came back from a 429."""

    agent: str
    tokens: int
    again: bool = False
    probe: bool = False
    since: float = 0.0
    sent_at: float = 0.0


@dataclass(slots=True)
class AdmissionStats:
    """Counters since the start; `waited_seconds` is the sum over admitted requests."""

    admitted: int = 0
    limited: int = 0
    waited_seconds: float = 0.0
    reserved_tokens: int = 0


@dataclass(slots=True)
class _Line:
    """Those of one agent that wait, and its part of the limits."""

    share: float
    requests: Bucket
    tokens: Bucket
    waiting: deque[Ticket] = field(default_factory=deque)


class Admission:
    """One object for an endpoint and model, for all agents of a process.

    `ask`, then `grant` until the ticket is among those granted, then `ended` once; or `drop` while it waits. `next_at` says when
    `grant` may have more to give.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.stats = AdmissionStats()
        self.concurrency = Concurrency(limits.concurrency)
        told = limits.rpm is not None or limits.tpm is not None
        ceiling = MOST_RATE if limits.rpm is None else limits.rpm / 60
        # With tokens alone told, requests are bounded by tokens; the finder only answers 429s then.
        self.finder = RateFinder(now, ceiling, told=told)
        self.in_flight = 0
        self._lines: dict[str, _Line] = {}
        self._turn: deque[str] = deque()
        self._pace_held = False

    # ---- shares ------------------------------------------------------------------------------------------------------
    def share(self, agent: str, fraction: float, now: float) -> None:
        """The part of the account's limits that this agent has here, 0 to 1. An agent that was never named has all of them."""
        line = self._line(agent, now)
        line.share = max(0.0, min(1.0, fraction))
        self._repace(now)

    # ---- the way of a request ----------------------------------------------------------------------------------------
    def ask(self, ticket: Ticket, now: float) -> None:
        """Queue it: behind the others of its agent, or before them where it was refused by the endpoint."""
        ticket.since = now
        waiting = self._line(ticket.agent, now).waiting
        if ticket.again:
            waiting.appendleft(ticket)
        else:
            waiting.append(ticket)

    def drop(self, ticket: Ticket) -> None:
        """It will not wait any longer. Nothing happens to one that was granted."""
        line = self._lines.get(ticket.agent)
        if line is not None and ticket in line.waiting:
            line.waiting.remove(ticket)

    def grant(self, now: float) -> list[Ticket]:
        """Those that may leave now, agents taking turns."""
        granted: list[Ticket] = []
        self.finder.grow(now, self._pace_held)
        self._repace(now)
        idle = 0
        while self._turn and idle < len(self._turn):
            if self.in_flight >= self.concurrency.limit or self.finder.may_go(now) > 0:
                break
            self._turn.rotate(-1)
            line = self._lines[self._turn[-1]]
            ticket = self._first(line, now)
            if ticket is None:
                idle += 1
                continue
            idle = 0
            granted.append(ticket)
        return granted

    def _first(self, line: _Line, now: float) -> Ticket | None:
        """The first of a line, if its pace lets it go."""
        if not line.waiting:
            return None
        ticket = line.waiting[0]
        if line.requests.wait(1, now) > 0 or line.tokens.wait(ticket.tokens, now) > 0:
            self._pace_held = True
            return None
        line.waiting.popleft()
        line.requests.take(1, now)
        line.tokens.take(ticket.tokens, now)
        ticket.probe = self.finder.sent(now)
        ticket.sent_at = now
        self.in_flight += 1
        self.stats.admitted += 1
        self.stats.reserved_tokens += ticket.tokens
        self.stats.waited_seconds += now - ticket.since
        return ticket

    def ended(self, ticket: Ticket, ended: Ended, now: float) -> None:
        """A granted request is over: its place is free, what it did not use is given back."""
        self.in_flight -= 1
        self.stats.reserved_tokens -= ticket.tokens
        line, finder = self._line(ticket.agent, now), self.finder
        if ended.kind == "unsent":
            line.requests.take(-1, now)
            line.tokens.take(-ticket.tokens, now)
            finder.ended(now, ticket.probe)
        elif ended.kind == "limited":
            self.stats.limited += 1
            line.tokens.take(-ticket.tokens, now)  # the endpoint took none
            finder.limited(now, ticket.probe, ended.retry_after, ticket.sent_at)
        else:
            if ended.tokens is not None:
                used = ended.tokens.input + ended.tokens.output
                line.tokens.take(used - ticket.tokens, now)
            if ended.kind == "served":
                finder.served(now, ticket.probe)
                self.concurrency.served(ended.seconds, ended.tokens.output if ended.tokens else 1, self.in_flight + 1)
            else:
                finder.ended(now, ticket.probe)

    # ---- what others look at -----------------------------------------------------------------------------------------
    def next_at(self, now: float) -> float | None:
        """When `grant` may have more to give than now; None: only after a request has ended, or nobody waits."""
        lines = [line for line in self._lines.values() if line.waiting]
        if not lines or self.in_flight >= self.concurrency.limit:
            return None
        closed = self.finder.may_go(now)
        if closed == math.inf:
            return None
        paced = min(max(line.requests.wait(1, now), line.tokens.wait(line.waiting[0].tokens, now)) for line in lines)
        wait = max(closed, paced)
        return None if wait == math.inf else now + wait

    def room(self, agent: str, now: float) -> bool:
        """Whether a request of this agent would leave soon: not behind a queue that takes long, nor while a 429 is waited out."""
        line = self._line(agent, now)
        if line.requests.rate <= 0 or line.tokens.rate <= 0 or len(line.waiting) >= self.limits.queue:
            return False
        if self.finder.may_go(now) > _ROOM_SECONDS:
            return False
        free = self.concurrency.limit - self.in_flight
        ahead = sum(ticket.tokens for ticket in line.waiting)
        queued = max((len(line.waiting) + 1) / line.requests.rate, ahead / line.tokens.rate) if line.waiting else 0.0
        late = line.waiting and line.tokens.wait(line.waiting[0].tokens, now) > _ROOM_SECONDS
        return not late and queued <= _ROOM_SECONDS and len(line.waiting) < max(1, free)

    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(line.waiting) for line in tuple(self._lines.values()))  # a copy: scrapes come from another thread

    # ---- parts -------------------------------------------------------------------------------------------------------
    def _line(self, agent: str, now: float) -> _Line:
        line = self._lines.get(agent)
        if line is None:
            line = self._lines[agent] = _Line(1.0, Bucket(0.0, math.inf, now), Bucket(0.0, math.inf, now))  # full
            self._turn.append(agent)
            self._repace(now)
        return line

    def _repace(self, now: float) -> None:
        """Bring every agent's pace to its part of what may be asked now.

        What was found out is this process's own, and so is the ceiling of what was told: its agents divide it by their shares.
        """
        told, finder = self.limits, self.finder
        shares = sum(line.share for line in self._lines.values())
        ours = min(1.0, shares)
        if told.rpm is not None:
            finder.within(told.rpm / 60 * ours)
        scale = finder.rate / finder.ceiling if told.rpm is not None and finder.ceiling > 0 else 1.0
        allowed = math.inf if told.tpm is None else told.tpm / 60 * ours * scale
        for line in self._lines.values():
            part = line.share / shares if shares else 0.0
            _set(line.requests, finder.rate * part, told.burst_seconds, 1.0, now)
            _set(line.tokens, allowed * part if part else 0.0, told.burst_seconds, 0.0, now)
        self._pace_held = self._pace_held and any(line.waiting for line in self._lines.values())


def _set(bucket: Bucket, rate: float, seconds: float, least: float, now: float) -> None:
    if rate != bucket.rate:
        bucket.change(rate, max(least, rate * seconds), now)
