"""The loops that drive every contender, whatever asks: so many calls, so many at a time, measured after a warm-up."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.bench.contenders.meter import Meter, report
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


async def slices(turn: Turn, given: dict[str, Any]) -> None:
    """Say {} when warm; then for each line of standard input make `calls` calls and say what CPU each took, until it ends.

    While a contender waits for its next slice it does nothing, so that of several only one runs at a time. Raises
    AssertionError as `run` does.
    """
    size, calls = given["size"], given["calls"]
    records, number = loans(size * 64), 0

    async def some() -> None:
        nonlocal number
        until = number + calls

        async def one() -> int:
            nonlocal number
            answered = 0
            while number < until:
                first, number = number * size, number + 1
                start = first % (size * 63)
                answered += await turn(records[start : start + size], first)
            return answered

        answered = sum(await asyncio.gather(*(one() for _ in range(given["in_flight"]))))
        assert answered == calls * size, f"{answered} of {calls * size} records were answered"

    for _ in range(2):
        await some()
    report({})
    while sys.stdin.readline():
        begun = time.process_time()
        await some()
        report({"cpu_us": 1e6 * (time.process_time() - begun) / calls})


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
