"""Produce to visible: from `send` to a read_committed subscriber's hands, with an instant scorer and no wait for company.

The loop by hand, transactional with batches built, is measured at the same two rates: what it takes is what this broker and this
machine take, with one transaction at a time for all partitions and nothing of order, receipts or fencing for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.bench.processes import contender
from tests.bench.shared import Json, quantile, record
from tests.bench.topics import create, read

GAPS = (0.0, 0.02, 0.1, 0.5)
WARM = 3.0


async def measure(
    bootstrap: str, data_dir: Path, name: str, *, per_second: float, seconds: float, gap: float = 0.0, by_hand: bool = False
) -> Json:
    """p50 and p99 in milliseconds at a steady rate; the first three seconds are left out. CPU as a share of one core."""
    source, decisions = f"{name}.src", f"{name}.out"
    await create(bootstrap, source, decisions)
    given: Json = {"bootstrap": bootstrap, "source": source, "decisions": decisions, "group": name, "data_dir": str(data_dir)}
    sent: dict[bytes, float] = {}
    waited: list[float] = []
    total = int(per_second * (seconds + WARM))
    skipped = int(per_second * WARM)
    seen = 0
    if by_hand:
        given.update(delivery="transactional", build="batch", count=total)
    else:
        given.update(delivery="exactly-once", within="0ms", commit_gap=gap)

    def take(records: list[Any]) -> bool:
        nonlocal seen
        now = time.perf_counter()
        waited.extend(1000 * (now - sent[found.key]) for found in records if int(found.key) >= skipped)
        seen += len(records)
        return seen >= total

    async with contender("handwritten" if by_hand else "headrace", given) as process:
        reading = asyncio.create_task(read(bootstrap, decisions, take, timeout=seconds + WARM + 40.0))
        await asyncio.sleep(5.0)  # the group forms
        await produce(bootstrap, source, sent, total, per_second)
        await reading
        if not by_hand:
            process.terminate()
        found = await process.result(40.0)
    assert seen == total, f"{seen} of {total} decisions were seen"
    return {
        "by_hand": by_hand, "per_second": per_second, "gap": gap,
        "p50_ms": quantile(waited, 0.5), "p99_ms": quantile(waited, 0.99), "max_ms": max(waited),
        "transactions_per_second": found["commits"] / (seconds + WARM),
        "cpu_share": found["cpu_us"] * found["records"] / 1e6 / found["seconds"],
    }  # fmt: skip


async def produce(bootstrap: str, topic: str, sent: dict[bytes, float], total: int, per_second: float) -> None:
    """Records at their time, however long the ones before take."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=0, acks="all")
    await producer.start()
    try:
        begun = time.perf_counter()
        number = 0
        while number < total:
            due = min(total, int((time.perf_counter() - begun) * per_second) + 1)
            while number < due:
                key, value, partition = record(number)
                sent[str(number).encode()] = time.perf_counter()
                await producer.send(topic, value, key=key, partition=partition)
                number += 1
            await asyncio.sleep(max(0.001, begun + number / per_second - time.perf_counter()))
    finally:
        await producer.stop()


async def all_of(bootstrap: str, data_dir: Path, *, half: float, seconds: float, say: Callable[[str], None]) -> Json:
    """The curve over HEADRACE_COMMIT_GAP at 100 records a second, and half of what one worker can do."""
    curve = []
    for gap in GAPS:
        found = await measure(bootstrap, data_dir, f"bench.gap.{gap}", per_second=100.0, seconds=seconds, gap=gap)
        say(f"100/s, gap {gap} s: p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms")
        curve.append(found)
    loaded = await measure(bootstrap, data_dir, "bench.half", per_second=half, seconds=seconds)
    say(f"half load, {half:.0f}/s: p50 {loaded['p50_ms']:.1f} ms, p99 {loaded['p99_ms']:.1f} ms")
    hands = []
    for rate in (100.0, half):
        found = await measure(bootstrap, data_dir, f"bench.by-hand.{rate:.0f}", per_second=rate, seconds=seconds, by_hand=True)
        say(f"by hand, {rate:.0f}/s: p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms")
        hands.append(found)
    return {"curve": curve, "half_load": loaded, "by_hand": hands}
