"""A client that always has more to ask, behind the real gates, against the sandbox's account: virtual time, no sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from models.gates.gate import Asking, Ended, Refused
from models.gates.passage import Passage
from models.sandbox.account import Account, AccountLimits
from models.sandbox.schedule import Schedule
from schemas.audit import Tokens
from tests.support.virtual_time import VirtualLoop

INPUT, OUTPUT, RESERVED = 610, 23, 160
"""Tokens of a request, and what it reserves for the output."""


@dataclass
class Found:
    """What became of the records, and the account's own count. `lost`: records whose deadline came first, by status."""

    decided: int
    requests: int
    lost: Mapping[str, int]
    said: Mapping[str, Any]

    @property
    def goodput(self) -> float:
        """What was decided of what the limit admitted beside another client."""
        ((name, admissible),) = self.said["admissible"].items()
        ours = admissible - self.said["foreign"][name]
        return float(self.decided * (1 if name == "requests" else INPUT + OUTPUT) / ours)

    @property
    def per_success(self) -> float:
        """Requests for each record decided."""
        return self.requests / max(1, self.decided)


async def saturate(
    limits: Limits, server: Mapping[str, Any], seconds: float, *, changes: tuple[tuple[float, float], ...] = (), seed: int = 0,
    in_flight: int = 64, deadline: float = 20.0, stalls: float = 0.0, trace: float = 0.0,
) -> Found:  # fmt: skip
    """Ask for so long, as the engine does: while there is room. `stalls`: up to so many seconds, twice a second, nothing runs."""
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    account = Account(AccountLimits(**server), Schedule(changes), loop.time, random.Random(seed + 1))
    admission, breaker = AdmissionGate(limits), BreakerGate("there")
    wake, asked = asyncio.Event(), set[asyncio.Task[None]]()
    admission.on_room("a", wake.set)
    until, lost = loop.time() + seconds, dict[str, int]()
    decided = requests = 0

    async def exchange(again: bool, by: float) -> float | None:
        """Seconds to wait where it was refused. Raises Refused or TimeoutError."""
        nonlocal requests
        passage = Passage((breaker, admission), Asking("a", INPUT, RESERVED, {0: 1}, again), by)
        async with asyncio.timeout_at(by), passage:
            begun = loop.time()
            requests += 1
            passage.ended = Ended("timeout")
            await asyncio.sleep(0.003)
            wait = account.admit(INPUT, RESERVED)
            headers = account.headers()
            if wait > 0:
                hint = wait if account.limits.headers else None
                passage.ended = Ended("limited", None, loop.time() - begun, hint, headers, 429)
                return hint or 0.0
            await asyncio.sleep(chance.lognormvariate(-0.22, 0.4))
            account.used(OUTPUT)
            passage.ended = Ended("served", Tokens(input=INPUT, output=OUTPUT), loop.time() - begun, None, headers, 200)
        return None

    async def ask() -> None:
        nonlocal decided
        by, again = loop.time() + deadline, False
        try:
            while (wait := await exchange(again, by)) is not None:
                again = True
                if loop.time() + wait >= by:
                    raise TimeoutError
            decided += 1
        except (TimeoutError, Refused) as error:
            if loop.time() < until:
                late = isinstance(error, TimeoutError) or error.status == "timeout"
                name = "TimeoutError" if late else "Refused"
                lost[name] = lost.get(name, 0) + 1
            if isinstance(error, Refused):
                await asyncio.sleep(1.0)

    def done(task: asyncio.Task[None]) -> None:
        asked.discard(task)
        wake.set()

    async def stall() -> None:
        while isinstance(loop, VirtualLoop):
            await asyncio.sleep(chance.expovariate(2.0))
            loop.skip(chance.random() * stalls)

    async def look() -> None:
        while trace:
            await asyncio.sleep(trace)
            core = admission.core
            stats, finder = core.stats, core.finder
            now, closed = loop.time() - until + seconds, "closed" if finder.closed else "open"
            print(
                f"{now:6.1f} {closed} rate {finder.requests:6.2f} {finder.tokens:8.0f} admitted {stats.admitted} "
                f"refused {stats.limited} waiting {stats.queue} flying {stats.in_flight} of {stats.concurrency_limit}"
            )

    others = [asyncio.ensure_future(stall()) if stalls else None, asyncio.ensure_future(look())]
    while loop.time() < until:
        while len(asked) < in_flight and admission.room("a"):
            task = asyncio.ensure_future(ask())
            asked.add(task)
            task.add_done_callback(done)
            await asyncio.sleep(0)
        wake.clear()
        try:
            async with asyncio.timeout_at(until):
                await wake.wait()
        except TimeoutError:
            break
    said, sent = account.as_json(), requests
    admitted_by_then = account.admitted
    for other in filter(None, others):
        other.cancel()
    flying = admission.core.in_flight
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert admitted_by_then == account.admitted
    return Found(decided + flying, sent, lost, said)  # what was admitted and is on its way is decided, but not yet
