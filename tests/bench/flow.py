"""With a slow model: goodput against the ideal, two workers against one, and memory while the model does not answer at all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.processes import Contender, contender
from tests.bench.shared import Json
from tests.bench.topics import create, read

MODEL_SECONDS = 0.2
SIZE = 16
Given = dict[str, Any]


async def rate(given: Given, *, workers: int, warm: float, window: float) -> float:
    """Decisions a second that a read_committed subscriber sees of `workers` processes, after `warm` seconds under way."""
    await create(given["bootstrap"], given["decisions"])
    async with contextlib.AsyncExitStack() as stack:
        running: list[Contender] = [await stack.enter_async_context(contender("headrace", given)) for _ in range(workers)]
        begun = counted = 0.0
        seen = 0

        def take(records: list[Any]) -> bool:
            nonlocal begun, counted, seen
            now = time.monotonic()
            begun = begun or now
            if now - begun >= warm:
                if not counted:
                    counted = now  # these came before the window
                else:
                    seen += len(records)
            return bool(counted) and now - counted >= window

        await read(given["bootstrap"], given["decisions"], take, timeout=warm + window + 40.0)
        elapsed = time.monotonic() - counted
        for process in running:
            process.terminate()
        results = await asyncio.gather(*(process.result(40.0) for process in running))
    assert all(found["status"] == 0 for found in results), results
    assert counted, "no decision was seen"
    return seen / elapsed


def model_bound(bootstrap: str, source: str, data_dir: Path, name: str, in_flight: int) -> Given:
    """A worker whose model takes 200 ms a call, 16 records in each."""
    return {
        "bootstrap": bootstrap, "source": source, "decisions": name, "group": name, "data_dir": str(data_dir),
        "delivery": "exactly-once", "model_seconds": MODEL_SECONDS, "size": SIZE, "in_flight": in_flight, "within": "20ms",
    }  # fmt: skip


async def goodput(
    bootstrap: str, source: str, data_dir: Path, *, window: float, machine: float, say: Callable[[str], None]
) -> Json:
    """64 calls in flight. `machine` is what the hand-written loop reached with no model at all, records a second."""
    ideal = 64 * SIZE / MODEL_SECONDS
    given = model_bound(bootstrap, source, data_dir, "bench.goodput", 64)
    found = await rate(given, workers=1, warm=2.0, window=window)
    bound = min(ideal, machine)
    say(f"goodput {found:.0f}/s of {ideal:.0f}/s; by hand without a model this machine does {machine:.0f}/s")
    return {"rate": found, "ideal": ideal, "machine": machine, "of_ideal": found / ideal, "of_bound": found / bound}


async def scaling(bootstrap: str, source: str, data_dir: Path, *, window: float, say: Callable[[str], None]) -> Json:
    """Sixteen calls in flight in each worker, so that the model is the bound and not this machine."""
    one = await rate(model_bound(bootstrap, source, data_dir, "bench.one", 16), workers=1, warm=2.0, window=window)
    two = await rate(model_bound(bootstrap, source, data_dir, "bench.two", 16), workers=2, warm=10.0, window=window)
    say(f"two workers {two:.0f}/s, one {one:.0f}/s: {two / one:.2f}")
    return {"one": one, "two": two, "speed_up": two / one, "ideal_one": 16 * SIZE / MODEL_SECONDS}


async def memory(
    bootstrap: str, source: str, data_dir: Path, *, backlog: int, seconds: float, say: Callable[[str], None]
) -> Json:
    """RSS while the model never answers and `backlog` records wait: sampled once it has paused, six seconds after its start."""
    given = model_bound(bootstrap, source, data_dir, "bench.stalled", 64)
    del given["model_seconds"]
    given |= {"model_seconds": None, "deadline": "10m", "drain": 0.5}
    await create(bootstrap, given["decisions"])
    samples: list[int] = []
    async with contextlib.AsyncExitStack() as stack:
        process = await stack.enter_async_context(contender("headrace", given))
        await asyncio.sleep(6.0)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            samples.append(process.rss())
            await asyncio.sleep(0.25)
        process.terminate()
        found = await process.result(60.0)
    mib = [value / 2**20 for value in samples]
    assert found["pauses"], "reading never paused: nothing was held"
    say(f"stalled over {backlog:,} records: {mib[0]:.0f} MiB at first, {max(mib):.0f} at most; paused by {found['pauses']}")
    return {
        "backlog": backlog, "seconds": seconds, "first_mib": mib[0], "max_mib": max(mib), "growth_mib": max(mib) - mib[0],
        "pauses": found["pauses"],
    }  # fmt: skip
