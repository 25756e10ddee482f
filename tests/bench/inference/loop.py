"""The loop that drives every contender, whatever asks: so many calls, so many at a time, measured after a warm-up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.bench.contenders.meter import Meter
from tests.bench.inference.work import Loan, loans

Turn = Callable[[list[Loan], int], Awaitable[int]]
"""Asks about some records, the first of which has this number; tells how many were answered."""


async def run(turn: Turn, given: dict[str, Any]) -> dict[str, Any]:
    """`calls` calls of `size` records, `in_flight` at a time; the first tenth is not measured. CPU is per call.

    Raises AssertionError where a record was left without an answer.
    """
    size, calls = given["size"], given["calls"]
    records, meter = loans(size * 64), Meter()
    answered = done = 0
    resident: list[int] = []
    numbers = iter(range(calls))

    async def one() -> None:
        nonlocal answered, done
        for number in numbers:
            if done >= calls // 10 and not meter.running:
                meter.start()
                resident.append(rss())
            start = (number * size) % (size * 63)
            got = await turn(records[start : start + size], number * size)
            answered += got
            done += 1

    await asyncio.gather(*(one() for _ in range(given["in_flight"])))
    assert answered == calls * size, f"{answered} of {calls * size} records were answered"
    return meter.result(calls - calls // 10, rss_first=resident[0], rss_last=rss())


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
