"""The sandbox's account: limits of requests and tokens, whoever uses them, and its own count of what they admit.

What a client achieved is judged by this count: what the limits would have admitted until now, less what another client took.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.sandbox.limits import Allowance, Bucket, Minute
from models.sandbox.schedule import Schedule
from schemas.errors import ConfigError

_BURST_SECONDS = 1.0
FOREIGN_TOKENS = 500
"""What a request of the other client costs."""


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """`rpm` and `tpm` are requests and tokens a minute (None: not limited), refilled "evenly" with a second of burst, or given
    out whole "by the minute", the first of which begins `phase` seconds after the start.

    `charges` says whether a request costs the tokens it "used" (input when it comes, output when it is answered) or those it
    "reserved" (input and the output that it allows, when it comes). `foreign` is the part of the limits that another client wants
    all the time, at random moments; what it is refused it does not ask for again. Without `headers` nobody is told anything.
    """

    rpm: int | None = None
    tpm: int | None = None
    window: Literal["evenly", "by the minute"] = "evenly"
    phase: float = 0.0
    charges: Literal["used", "reserved"] = "used"
    foreign: float = 0.0
    headers: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.foreign <= 1:
            raise ConfigError(f"giving another client {self.foreign} of the sandbox's limits: write a part from 0 to 1")


@dataclass(slots=True)
class _Counted:
    """Of requests or of tokens."""

    allowance: Allowance
    limit: float
    admissible: float = 0.0
    foreign: float = 0.0


@dataclass(slots=True)
class Account:
    """`admit` each request that comes, `used` when it was answered. `chance` draws the moments of the other client."""

    limits: AccountLimits
    schedule: Schedule
    clock: Callable[[], float]
    chance: random.Random
    admitted: int = 0
    _counted: dict[str, _Counted] = field(init=False)
    _start: float = field(init=False)
    _now: float = field(init=False)
    _changes: list[tuple[float, float]] = field(init=False)
    _draw_at: float = field(init=False, default=math.inf)

    def __post_init__(self) -> None:
        self._start = self._now = self.clock()
        named = {"requests": self.limits.rpm, "tokens": self.limits.tpm}
        self._counted = {name: _Counted(self._allowance(limit), limit) for name, limit in named.items() if limit is not None}
        self._changes = [(self._start + at, factor) for at, factor in self.schedule.changes]
        self._next_draw()

    def _allowance(self, limit: int) -> Allowance:
        if self.limits.window == "evenly":
            return Bucket(limit, lambda: self._now, _BURST_SECONDS)
        return Minute(limit, lambda: self._now, self.limits.phase)

    # ---- requests ---------------------------------------------------------------------------------------------------------
    def admit(self, input_tokens: int, output_limit: int) -> float:
        """0.0: the request is admitted and charged. Otherwise the seconds after which it would be."""
        self.advance()
        tokens = input_tokens + (output_limit if self.limits.charges == "reserved" else 0)
        wait = self._take(tokens)
        self.admitted += wait <= 0
        return wait

    def used(self, output_tokens: int) -> None:
        """A request was answered with so many tokens."""
        self.advance()
        if self.limits.charges == "used" and "tokens" in self._counted:
            self._counted["tokens"].allowance.take(output_tokens)

    def headers(self) -> dict[str, str]:
        """What an answer says of the limits, as OpenAI writes it."""
        if not self.limits.headers:
            return {}
        self.advance()
        said: dict[str, str] = {}
        for name, counted in self._counted.items():
            allowance = counted.allowance
            said[f"x-ratelimit-limit-{name}"] = f"{allowance.per_minute:.0f}"
            said[f"x-ratelimit-remaining-{name}"] = str(allowance.left)
            said[f"x-ratelimit-reset-{name}"] = duration(allowance.reset)
        return said

    def hints(self, wait: float) -> dict[str, str]:
        """What a 429 says besides."""
        if not self.limits.headers:
            return {}
        return {"Retry-After": str(math.ceil(wait)), "Retry-After-Ms": str(math.ceil(wait * 1000))}

    @property
    def second(self) -> float:
        """Since the start."""
        return self.clock() - self._start

    # ---- time -------------------------------------------------------------------------------------------------------------
    def advance(self) -> None:
        """Let happen what was to happen until now, in its order: the limits' changes, the other client's requests."""
        now = self.clock()
        while True:
            change_at = self._changes[0][0] if self._changes else math.inf
            at = min(now, change_at, self._draw_at)
            served = self.schedule.served(self._now - self._start, at - self._start)
            for counted in self._counted.values():
                counted.admissible += served * counted.allowance.per_minute / 60
            self._now = at
            if at == change_at:
                _, factor = self._changes.pop(0)
                for counted in self._counted.values():
                    counted.allowance.change(counted.limit * factor)
            elif at == self._draw_at:
                if self.schedule.outage(at - self._start) is None and self._take(FOREIGN_TOKENS) <= 0:
                    for name, counted in self._counted.items():
                        counted.foreign += 1 if name == "requests" else FOREIGN_TOKENS
                self._next_draw()
            else:
                return

    def _next_draw(self) -> None:
        costs = {"requests": 1, "tokens": FOREIGN_TOKENS}
        rates = [counted.allowance.per_minute / 60 / costs[name] for name, counted in self._counted.items()]
        rate = self.limits.foreign * min(rates, default=0.0)
        self._draw_at = self._now + self.chance.expovariate(rate) if rate > 0 else math.inf

    def _take(self, tokens: int) -> float:
        """Take one request and its tokens; or seconds to wait, and nothing is taken."""
        costs = {"requests": 1, "tokens": tokens}
        wait = max((counted.allowance.wait(costs[name]) for name, counted in self._counted.items()), default=0.0)
        if wait <= 0:
            for name, counted in self._counted.items():
                counted.allowance.take(costs[name])
        return wait

    # ---- the count --------------------------------------------------------------------------------------------------------
    def as_json(self) -> Mapping[str, Any]:
        """`admissible`: what the limits would have admitted until now, outages apart; `foreign`: what another client took."""
        self.advance()
        return {
            "seconds": self._now - self._start,
            "admitted": self.admitted,
            "admissible": {name: counted.admissible for name, counted in self._counted.items()},
            "foreign": {name: counted.foreign for name, counted in self._counted.items()},
        }


def duration(seconds: float) -> str:
    """`0s`, `120ms`, `1.2s`, `6m0s`, as OpenAI's headers have it."""
    if seconds >= 60:
        return f"{int(seconds // 60)}m{seconds % 60:.3g}s"
    return f"{seconds * 1000:.0f}ms" if 0 < seconds < 1 else f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
