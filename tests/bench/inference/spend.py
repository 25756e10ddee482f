"""Part `spend`: two workers keep a day's budget and one is killed in the middle of a call: what the model's meter says of it.

Real workers as processes, on a real Apache Kafka. Before the sandbox stands a front that finishes what its client left, as a
provider does: a request that is under way at the kill is paid. A token costs a millionth, so that tokens and money are one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from models.sandbox.server import Sandbox, SandboxConfig
from tests.bench.inference.part import Say, at_most, columns
from tests.bench.processes import ROOT
from tests.bench.shared import Json
from tests.support.front import Front, Served
from tests.support.kafka import produce, read_all
from topics import names
from topics.dev_broker import ApacheKafka, LocalBroker, free_port, missing_java_tools

AGENT = "product-quality"
STOP = 60_000
IN_FLIGHT = 2
RECORDS = 400
KILLED_AT = (0.3, 0.6, 0.85)
"""Parts of its own half of the stop that a worker has spent when it is killed, a round each. Nearer to it nothing leaves."""


async def measure(*, quick: bool, say: Say) -> Json:
    """A round for each point of the kill. Without Java there is no Apache Kafka, and nothing is measured."""
    reason = missing_java_tools(ROOT / ".headrace")
    if reason is not None:
        say(f"spend: left out: {reason}")
        return {"left_out": reason, "rounds": []}
    rounds = []
    async with ApacheKafka(ROOT / ".headrace") as broker:
        for part in KILLED_AT[-1:] if quick else KILLED_AT:
            found = await _round(broker, part)
            rounds.append(found)
            say(f"spend, killed at {part:.0%} of its half: {found['spent']:,} of {STOP:,}, {found['in_flight']} calls in flight")
    return {"stop": STOP, "records": RECORDS, "in_flight_limit": IN_FLIGHT, "rounds": rounds}


async def _round(broker: LocalBroker, part: float) -> Json:
    """Start two workers, kill one when so much is spent and it has a call under way, let the other one finish."""
    with tempfile.TemporaryDirectory(prefix="bench-spend-", dir=ROOT / ".headrace") as folder:
        async with Sandbox(SandboxConfig(latency="300ms")) as metered, Front(metered.base_url) as front:
            environment, source, decided = _environment(broker.bootstrap, front.base_url, Path(folder))
            await _command(environment, "topics", "apply", AGENT)
            keys, ports = ("first", "second"), (free_port(), free_port())
            async with contextlib.AsyncExitStack() as stack:
                workers = [
                    await stack.enter_async_context(
                        _worker(environment | {"HEADRACE_MODEL_API_KEY": key, "HEADRACE_METRICS_PORT": str(port)}, Path(folder))
                    )
                    for key, port in zip(keys, ports, strict=True)
                ]
                for port in ports:
                    await _until(lambda port=port: _reads_one(port), 60)  # type: ignore[misc]  # a loop's variable, bound
                await produce(broker.bootstrap, source, map(_reading, range(RECORDS)))
                await _until(lambda: _spent(front, "first") >= part * STOP / 2 and _under_way(front, "first"), 120)
                workers[0].kill()
                killed = time.time()
                await _decided(broker.bootstrap, decided)
                workers[1].terminate()
                await asyncio.wait_for(workers[1].wait(), 60)
            spent = metered.meter.input_tokens + metered.meter.output_tokens
            calls = await read_all(broker.bootstrap, names.calls(AGENT))
            return _account(front.log, killed, part, spent, {orjson.loads(record.value)["request_hash"] for record in calls})


def _account(log: Sequence[Served], killed: float, part: float, spent: int, recorded: set[str]) -> Json:
    """What the killed worker had in flight: calls that the model worked on, and those whose record was not confirmed yet.

    Both hold a place of the worker's: it uses no answer before its call is recorded.
    """
    theirs = [served for served in log if served.who == "first" and served.began <= killed]
    in_flight = [served for served in theirs if served.ended is None or served.ended > killed]
    ended = [served for served in theirs if served not in in_flight and served.digest not in recorded]
    beyond = spent - STOP
    return {
        "killed_at": part,
        "spent": spent,
        "beyond": max(0, beyond),
        "in_flight": len(in_flight),
        "in_flight_tokens": sum(served.tokens for served in in_flight),
        "ended_unrecorded": len(ended),
        "ended_unrecorded_tokens": sum(served.tokens for served in ended),
        "past_the_bound": max(0, beyond - sum(served.tokens for served in (*in_flight, *ended))),
    }


def _environment(bootstrap: str, base_url: str, folder: Path) -> tuple[dict[str, str], str, str]:
    """What both workers are told; the names of their source and of their decisions."""
    stem = uuid.uuid4().hex[:8]
    source, decided = f"readings-{stem}", f"quality-{stem}"
    placed = {"machine-readings": {"physical": source, "partitions": 2}}
    placed["product-quality-decisions"] = {"physical": decided, "partitions": 2}
    tuned = {AGENT: {"budget": str(STOP / 1_000_000), "batch_size": 4, "in_flight": IN_FLIGHT, "deadline": "30s"}}
    given = {
        "HEADRACE_KAFKA": bootstrap, "HEADRACE_DATA_DIR": str(folder), "HEADRACE_SESSION_TIMEOUT": "6",
        "HEADRACE_TOPICS": json.dumps(placed), "HEADRACE_GROUP_PREFIX": f"spend-{stem}", "HEADRACE_TENANT": stem,
        "HEADRACE_MODEL_BASE_URL": base_url, "HEADRACE_MODEL_PRICE": '{"input": "1", "output": "1"}',
        "HEADRACE_AGENTS": json.dumps(tuned),
    }  # fmt: skip
    return os.environ | given, source, decided


def _reading(number: int) -> tuple[bytes, bytes]:
    """A reading of a machine of its own, near its limits, so that it is asked about."""
    body: dict[str, Any] = {
        "device": f"m{number}", "ts": int(time.time() * 1000) - 60_000, "product": f"p{number}", "variant": "L",
        "air_temperature": 300.0, "process_temperature": 308.7, "rotational_speed": 1300, "torque": 62.0, "tool_wear": 230,
    }  # fmt: skip
    return str(body["device"]).encode(), orjson.dumps(body)


def _spent(front: Front, who: str) -> int:
    return sum(served.tokens for served in front.log if served.who == who)


def _under_way(front: Front, who: str) -> bool:
    return any(served.who == who and time.time() - served.began > 0.05 for served in front.under_way)


@contextlib.asynccontextmanager
async def _worker(environment: dict[str, str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker that is gone afterwards, whatever happened."""
    with (folder / f"{environment['HEADRACE_MODEL_API_KEY']}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agents.cli.main", "worker", AGENT, env=environment, cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _command(environment: dict[str, str], *words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agents.cli.main", *words, env=environment, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )
    if await asyncio.wait_for(process.wait(), 60):
        raise RuntimeError(f"headrace {' '.join(words)} failed")


async def _until(condition: Callable[[], Any], seconds: float) -> None:
    """Wait for something, at most so long. Raises RuntimeError."""
    limit = time.monotonic() + seconds
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if time.monotonic() > limit:
            raise RuntimeError(f"spend: waited {seconds:.0f} s in vain")
        await asyncio.sleep(0.02)


async def _reads_one(port: int) -> bool:
    """Whether a worker says that it reads one partition."""

    def scrape() -> str:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read(), "utf-8")
        return ""

    return len(re.findall(r"^headrace_lag_records\{", await asyncio.to_thread(scrape), re.MULTILINE)) == 1


async def _decided(bootstrap: str, topic: str) -> None:
    """Wait until every record has its decision. Raises RuntimeError."""
    limit = time.monotonic() + 120
    while len(await read_all(bootstrap, topic)) < RECORDS:
        if time.monotonic() > limit:
            raise RuntimeError(f"spend: not all of {RECORDS} records were decided within 120 s")
        await asyncio.sleep(0.5)


def tables(found: Json) -> Sequence[Table]:
    """A row for each round."""
    if not found["rounds"]:
        return []
    title = (
        f"Two workers, a stop at {found['stop']:,} tokens, {found['records']} records; one is killed in the middle of a call, "
        f"{found['in_flight_limit']} in flight at most. Tokens by the model's meter"
    )
    heads = ("killed at, of its half", "spent", "beyond the stop", "worked on then", "tokens", "ended, not recorded", "tokens")
    table = columns(title, *heads, "beyond stop and both")
    shown = ("spent", "beyond", "in_flight", "in_flight_tokens", "ended_unrecorded", "ended_unrecorded_tokens", "past_the_bound")
    for row in found["rounds"]:
        table.add_row(f"{row['killed_at']:.0%}", *(f"{row[name]:,}" for name in shown))
    return [table]


def expectations(found: Json) -> Sequence[Json]:
    """Nothing beyond the stop and what was in flight, and no more of that than a worker may have; in the worst round."""
    if not found["rounds"]:
        return []
    beyond = max(row["past_the_bound"] for row in found["rounds"])
    lost = max(row["in_flight"] + row["ended_unrecorded"] for row in found["rounds"])
    return [
        at_most("tokens spent beyond the stop and what was in flight at a kill", beyond, 0),
        at_most("calls in flight at a kill, of which nobody else knows", lost, found["in_flight_limit"]),
    ]
