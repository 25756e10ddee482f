"""The loop of the contenders of `goodput`: always more records waiting, so many workers, a deadline for each record.

Nothing of Headrace is imported but the work: the peers run in environments of their own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.bench.contenders.meter import configuration, report, tune_collector
from tests.bench.inference.work import Loan, loans

MODEL = "bench"
MOST_OUTPUT = 160
"""Tokens that an answer may have, as Headrace reserves for one record."""
AFTER = 6.0
"""Seconds for what the server admitted before the end to be answered; it admits nothing after."""
REST = 1.0
"""Seconds that a worker rests whose record failed: nobody would spin, and a server that refuses is spared."""

Ask = Callable[[Loan, int], Awaitable[bool]]
"""Asks about one record, which has this number; whether it was answered. Whatever it raises is no answer."""


class Tally:
    """What became of the records."""

    def __init__(self) -> None:
        self.decided = self.given_up = 0
        self.seconds: list[float] = []
        self.errors: dict[str, int] = {}

    def lost(self, why: str) -> None:
        """A record whose deadline passed, or whose client gave up."""
        self.given_up += 1
        self.errors[why] = self.errors.get(why, 0) + 1

    def won(self, seconds: float) -> None:
        """A record that the model decided within its deadline."""
        self.decided += 1
        self.seconds.append(seconds)

    def result(self) -> dict[str, Any]:
        """JSON."""
        ordered = sorted(self.seconds) or [0.0]
        return {
            "decided": self.decided, "given_up": self.given_up, "errors": self.errors, "cpu": time.process_time(),
            "p50": ordered[len(ordered) // 2], "p99": ordered[int(0.99 * len(ordered))],
        }  # fmt: skip


async def saturate(ask: Ask, given: dict[str, Any]) -> Tally:
    """`in_flight` workers for `seconds`, each with one record at a time, `deadline` seconds for each."""
    loop, tally, records = asyncio.get_running_loop(), Tally(), loans(512)
    until, over = window(given)
    number = 0

    async def worker() -> None:
        nonlocal number
        while loop.time() < until:
            number += 1
            begun = loop.time()
            try:
                async with asyncio.timeout(given["deadline"]):
                    answered = await ask(records[number % 512], number)
            except Exception as error:  # noqa: BLE001 - whatever a client raises, the record has no answer
                if loop.time() < over:
                    tally.lost(type(error).__name__)
                    await asyncio.sleep(REST)
            else:
                tally.won(loop.time() - begun) if answered else tally.lost("no answer")

    workers = [asyncio.ensure_future(worker()) for _ in range(given["in_flight"])]
    await asyncio.sleep(until - loop.time())
    await ended(workers)
    return tally


def window(given: dict[str, Any]) -> tuple[float, float]:
    """Until when to ask, and from when on a failure may come of the server's end and is no record lost, in loop time.

    By the server's clock: on a busy machine a client begins a second late, and would take the server's end for an outage.
    """
    end = given["started"] + given["seconds"]
    return end, end - 0.5


async def ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for those that can still be answered, and let go of the rest."""
    if tasks:
        await asyncio.wait(tasks, timeout=AFTER)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main(run: Callable[[str, dict[str, Any]], Awaitable[Tally]]) -> None:
    """Say that all is imported, wait for the server's address and start, run, report."""
    given = configuration()
    tune_collector()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    served = json.loads(sys.stdin.readline())
    given["started"] = served["started"]
    report(asyncio.run(_run(run, served["base_url"], given)))


async def _run(run: Callable[[str, dict[str, Any]], Awaitable[Tally]], base_url: str, given: dict[str, Any]) -> dict[str, Any]:
    return (await run(base_url, given)).result()
