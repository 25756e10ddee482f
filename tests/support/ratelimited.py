"""A simulated provider with rate limits, and clients that ask it through Admission, on a virtual clock: hours in seconds.

Deterministic: one seed, one course of events. The provider is written on its own, not with the client's bucket.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from models.gates.admission import Admission, Limits, Ticket
from models.gates.gate import Ended
from schemas.audit import Tokens

Kind = Literal["evenly", "by the minute"]


@dataclass
class Provider:
    """Limits a minute as providers have them: refilled evenly with `burst` seconds saved, or given out whole at each minute.

    Reserves what a request may use and settles when it ends, as the sandbox does. `offset` is when its minutes start.
    """

    kind: Kind
    rpm: float = math.inf
    tpm: float = math.inf
    burst: float = 1.0
    offset: float = 37.0
    retry_after: bool = False
    headers: bool = False
    left: dict[str, float] = field(default_factory=dict)
    at: float = 0.0
    refused: int = 0
    foreign: int = 0
    admissible: float = 0.0
    admissible_tokens: float = 0.0

    def __post_init__(self) -> None:
        self.left = {"requests": self._most("requests"), "tokens": self._most("tokens")}

    def _limit(self, what: str) -> float:
        return self.rpm if what == "requests" else self.tpm

    def _most(self, what: str) -> float:
        limit = self._limit(what)
        return limit if self.kind == "by the minute" else max(1.0, limit / 60 * self.burst)

    def refill(self, now: float) -> None:
        """Bring the allowances up to `now`."""
        passed = now - self.at
        self.admissible += passed * self.rpm / 60
        self.admissible_tokens += passed * self.tpm / 60
        minutes = math.floor((now - self.offset) / 60) > math.floor((self.at - self.offset) / 60)
        for what in self.left:
            if math.isinf(self._limit(what)):
                continue
            if self.kind == "evenly":
                self.left[what] = min(self._most(what), self.left[what] + passed * self._limit(what) / 60)
            elif minutes:
                self.left[what] = self._most(what)
        self.at = now

    def set_limits(self, factor: float, now: float) -> None:
        """From now on so much of the limits."""
        self.refill(now)
        self.rpm, self.tpm = self.rpm * factor, self.tpm * factor
        for what in self.left:
            self.left[what] = min(self.left[what], self._most(what))

    def take(self, tokens: float, now: float) -> bool:
        """One request of so many tokens; False: 429."""
        self.refill(now)
        if self.left["requests"] < 1 - 1e-9 or self.left["tokens"] < min(tokens, self._most("tokens")) - 1e-9:
            self.refused += 1
            return False
        self.left["requests"] -= 1
        self.left["tokens"] -= tokens
        return True

    def settle(self, unused: float, now: float) -> None:
        """What a request had reserved and did not use."""
        self.refill(now)
        self.left["tokens"] = min(self._most("tokens"), self.left["tokens"] + unused)

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until it would be admitted."""
        if self.kind == "by the minute":
            return 60 - (now - self.offset) % 60
        lacking = {"requests": 1.0, "tokens": min(tokens, self._most("tokens"))}
        limited = [what for what in lacking if not math.isinf(self._limit(what))]
        return max((lacking[what] - self.left[what]) / (self._limit(what) / 60) for what in limited)

    def said(self) -> Mapping[str, str]:
        """The headers of an answer, as OpenAI has them."""
        if not self.headers:
            return {}
        said: dict[str, str] = {}
        for what, left in self.left.items():
            limit = self._limit(what)
            if not math.isinf(limit):
                by_the_minute = self.kind == "by the minute"
                reset = 60 - (self.at - self.offset) % 60 if by_the_minute else 60 * (limit - left) / limit
                said |= {
                    f"x-ratelimit-limit-{what}": f"{limit:.0f}",
                    f"x-ratelimit-remaining-{what}": f"{max(0, left):.0f}",
                    f"x-ratelimit-reset-{what}": f"{reset:.3f}s",
                }
        return said


class Simulation:
    """Events in the order of virtual time, in seconds."""

    def __init__(self, provider: Provider, seed: int = 7) -> None:
        self.provider = provider
        self.chance = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Do it then."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def run(self, seconds: float) -> None:
        """Until then."""
        while self._events and self._events[0][0] <= seconds:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = seconds
        self.provider.refill(seconds)

    def foreign(self, part: float) -> None:
        """Another client takes that part of the limit, at random moments, and does not come back with what is refused."""
        provider = self.provider
        limit = provider.rpm if not math.isinf(provider.rpm) else provider.tpm / 500
        if provider.take(500 if math.isinf(provider.rpm) else 0, self.now):
            provider.foreign += 1
        self.after(self.chance.expovariate(part * limit / 60), lambda: self.foreign(part))


class Client:
    """A process with agents that always have more to ask, `demand` requests a second each, or as much as goes (None)."""

    def __init__(self, sim: Simulation, limits: Limits, agents: Mapping[str, float | None] | None = None) -> None:
        self.sim = sim
        self.admission = Admission(limits, sim.now)
        self.demand = dict(agents or {"agent": None})
        self.sent = self.served = self.tokens = 0
        self.by_agent = dict.fromkeys(self.demand, 0)
        self.sent_at: list[tuple[float, int]] = []
        self._timer = math.inf
        for agent, demand in self.demand.items():
            if demand is not None:
                self._arrive(agent, demand)
        sim.after(0.0, self.pump)

    def share(self, agent: str, fraction: float) -> None:
        """See Admission."""
        self.admission.share(agent, fraction, self.sim.now)
        self.pump()

    def _arrive(self, agent: str, demand: float) -> None:
        self._ask(agent)
        self.pump()
        self.sim.after(self.sim.chance.expovariate(demand), lambda: self._arrive(agent, demand))

    def _ask(self, agent: str) -> None:
        tokens = int(min(1000, self.sim.chance.lognormvariate(5.8, 0.4))) + 200
        self.admission.ask(Ticket(agent, tokens), self.sim.now)

    def pump(self) -> None:
        """Keep the queues filled and let go who may."""
        admission, sim = self.admission, self.sim
        while True:
            for agent, demand in self.demand.items():
                queue = admission._queue(agent, sim.now)
                while demand is None and len(queue.waiting) < 4:
                    self._ask(agent)
            granted = admission.grant(sim.now)
            for ticket in granted:
                self._send(ticket)
            if not granted:
                break
        due = admission.next_at(sim.now)
        if due is not None and (due < self._timer or self._timer <= sim.now):
            self._timer = max(due, sim.now + 1e-3)
            sim.after(self._timer - sim.now, self.pump)

    def _send(self, ticket: Ticket) -> None:
        self.sent += 1
        self.sent_at.append((self.sim.now, ticket.tokens))
        self.sim.after(self.sim.chance.uniform(0.01, 0.02), lambda: self._arrived(ticket))

    def _arrived(self, ticket: Ticket) -> None:
        sim, provider = self.sim, self.sim.provider
        if provider.take(ticket.tokens, sim.now):
            output = sim.chance.randint(20, 200)
            seconds = sim.chance.lognormvariate(0.0, 0.3) * (0.3 + output / 100)
            sim.after(seconds, lambda: self._served(ticket, output))
            return
        hint = provider.wait(ticket.tokens, sim.now) if provider.retry_after else None
        if hint is not None:
            hint = float(math.ceil(hint))
        said = provider.said()
        sim.after(0.015, lambda: self._refused(ticket, hint, said))

    def _served(self, ticket: Ticket, output: int) -> None:
        sim = self.sim
        self.served += 1
        self.by_agent[ticket.agent] += 1
        sim.provider.settle(200 - output, sim.now)
        used = Tokens(input=ticket.tokens - 200, output=output)
        self.tokens += ticket.tokens - 200 + output
        took = sim.now - ticket.sent_at
        self.admission.ended(ticket, Ended("served", used, took, headers=sim.provider.said()), sim.now)
        self.pump()

    def _refused(self, ticket: Ticket, hint: float | None, said: Mapping[str, str]) -> None:
        sim = self.sim
        self.admission.ended(ticket, Ended("limited", None, sim.now - ticket.sent_at, hint, said, 429), sim.now)
        self.admission.ask(Ticket(ticket.agent, ticket.tokens, again=True), sim.now)
        self.pump()
