"""A provider's rate limits in virtual time, and a client of Admission against it: hours in seconds, the same every time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from models.gates.admission import Admission, Ticket
from models.gates.gate import Ended
from schemas.audit import Tokens


@dataclass
class Provider:
    """Admits `rpm` requests and `tpm` tokens a minute, evenly ("bucket", a second of burst) or at each minute's start."""

    rpm: float
    kind: Literal["bucket", "minute"]
    tpm: float = float("inf")
    charges: Literal["reserved", "used"] = "used"
    hints: bool = False
    served: int = 0
    refused: int = 0
    admissible: float = 0.0
    _level: dict[str, float] = field(default_factory=dict)
    _at: float = 0.0
    _minute: int = -1

    def advance(self, now: float) -> None:
        """Refill; count what could have been admitted."""
        self.admissible += (now - self._at) * min(self.rpm / 60, self.tpm / 60 / TOKENS)
        for name, per_minute in (("requests", self.rpm), ("tokens", self.tpm)):
            if self.kind == "minute":
                if int(now // 60) != self._minute or name not in self._level:
                    self._level[name] = per_minute
            else:
                most = max(1.0, per_minute / 60)
                self._level[name] = min(most, self._level.get(name, most) + (now - self._at) * per_minute / 60)
        self._minute, self._at = int(now // 60), now

    def change(self, now: float, factor: float) -> None:
        """From now on another limit; what is left of this minute shrinks or grows alike."""
        self.advance(now)
        self.rpm *= factor
        self.tpm *= factor
        self._level = {name: level * factor for name, level in self._level.items()}

    def arrives(self, now: float, tokens: int) -> float | None:
        """None: admitted. Otherwise the Retry-After of its 429, which is 0.0 where it sends none."""
        self.advance(now)
        if self._level["requests"] >= 1 and self._level["tokens"] >= min(tokens, self.tpm / 60):
            self._level["requests"] -= 1
            self._level["tokens"] -= tokens
            self.served += 1
            return None
        self.refused += 1
        if not self.hints:
            return 0.0
        return 60 - now % 60 if self.kind == "minute" else max(0.1, (1 - self._level["requests"]) * 60 / self.rpm)


TOKENS = 400
"""What a request uses; it reserves half as much again."""


@dataclass
class Client:
    """One process: keeps `depth` requests waiting at all times, as a backlog does."""

    admission: Admission
    agents: tuple[str, ...] = ("a",)
    depth: int = 4
    latency: Callable[[float], float] = lambda now: 0.2
    done: int = 0
    refused: int = 0
    by_agent: dict[str, int] = field(default_factory=dict)


Event = tuple[float, Callable[[float], None]]


def simulate(
    provider: Provider, clients: list[Client], seconds: float, *, events: list[Event] | None = None, foreign: float = 0.0,
    seed: int = 1,
) -> None:  # fmt: skip
    """Run them together for so many seconds; `events` happen at their times; a foreign client takes `foreign` of the limit."""
    drawn = random.Random(seed)
    heap: list[tuple[float, int, Callable[[float], None]]] = []
    number = 0

    def at(when: float, what: Callable[[float], None]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(heap, (when, number, what))

    def fill(client: Client, now: float) -> None:
        for agent in client.agents:
            waiting = client.admission._queue(agent, now).waiting
            while len(waiting) < client.depth:
                client.admission.ask(Ticket(agent, TOKENS * 3 // 2), now)

    def pump(client: Client, now: float) -> None:
        fill(client, now)
        for ticket in client.admission.grant(now):
            at(now + 0.02 * drawn.random(), partial(arrive, client, ticket))
        fill(client, now)

    def arrive(client: Client, ticket: Ticket, now: float) -> None:
        hint = provider.arrives(now, TOKENS if provider.charges == "used" else ticket.tokens)
        if hint is None:
            took = client.latency(now) * (0.8 + 0.4 * drawn.random())
            at(now + took, lambda then: served(client, ticket, took, then))
        else:
            at(now + 0.02, lambda then: refused(client, ticket, hint, then))

    def served(client: Client, ticket: Ticket, took: float, now: float) -> None:
        client.done += 1
        client.by_agent[ticket.agent] = client.by_agent.get(ticket.agent, 0) + 1
        client.admission.ended(ticket, Ended("served", Tokens(input=TOKENS - 100, output=100), took), now)
        pump(client, now)

    def refused(client: Client, ticket: Ticket, hint: float, now: float) -> None:
        client.refused += 1
        client.admission.ended(ticket, Ended("limited", retry_after=hint or None), now)
        client.admission.ask(Ticket(ticket.agent, ticket.tokens, again=True), now)
        pump(client, now)

    def tick(client: Client, now: float) -> None:
        pump(client, now)
        due = client.admission.next_at(now)
        at(now + 0.25 if due is None else min(max(due, now + 0.002), now + 0.25), lambda then: tick(client, then))

    def take_foreign(now: float) -> None:
        provider.advance(now)
        if provider._level["requests"] >= 1:
            provider._level["requests"] -= 1
        at(now + 60 / (provider.rpm * foreign), take_foreign)

    for client in clients:
        at(0.0, partial(tick, client))
    for when, what in events or []:
        at(when, what)
    if foreign:
        at(0.0, take_foreign)
    while heap and heap[0][0] < seconds:
        now, _, what = heapq.heappop(heap)
        what(now)
