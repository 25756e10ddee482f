"""Part `goodput`: a saturated client against rate limits. What the sandbox metered is what counts.

Every contender has a process and a server of its own; several such pairs run at once, since they mostly wait. Everything is
counted from the first request on, the slow start of who was told nothing included. By the minute, the first minute begins ten
seconds after the start and the last one ends with the run, so that the limit times the time is exactly what the server gives out.
What is left of a minute shrinks with a limit that is halved: who had used all of it before keeps the advantage (above 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from tests.bench.inference import pair
from tests.bench.inference.environment import environment
from tests.bench.inference.part import Say, at_least, at_most, columns
from tests.bench.shared import Json

IN_FLIGHT, DEADLINE = 32, 20.0
"""At ten answers a second of nine tenths of a second each, nine in flight would do."""
LATENCY = "lognormal:800ms:0.4"
WINDOWS: dict[str, tuple[Json, float]] = {
    "token bucket": ({"window": "evenly"}, 90.0),
    "fixed minute": ({"window": "by the minute", "phase": 10.0}, 130.0),
}
"""The server, and how long a run lasts."""
LIMITS: dict[str, Json] = {"requests": {"rpm": 600}, "tokens": {"tpm": 330_000}}
SCENARIOS: dict[str, Json] = {
    "told": {},
    "untold": {"headers": False},
    "untold, halved at 40 s": {"headers": False, "changes": "40:0.5"},
    "untold, 30 % another's": {"headers": False, "foreign": 0.3},
    "told, halved at 40 s": {"changes": "40:0.5"},
    "told, 30 % another's": {"foreign": 0.3},
}
"""What the server does. Untold: it says nothing in headers either, and Headrace is not told; peers that need a limit are."""
CONTENDERS: dict[str, tuple[str, str]] = {
    "Headrace": ("saturate_headrace", ""),
    "AsyncOpenAI, defaults": ("saturate_peers", "defaults"),
    "AsyncOpenAI in tenacity": ("saturate_peers", "tenacity"),
    "AsyncOpenAI, paced, told": ("saturate_peers", "paced"),
    "LiteLLM Router, told": ("saturate_litellm", ""),
}
"""Module and kind of contender."""
BESIDE = ("told", "untold", "untold, halved at 40 s", "untold, 30 % another's")
"""Scenarios in which the peers run too: in the others they would do the same again."""
AT_ONCE = 10


async def measure(*, quick: bool, say: Say) -> Json:
    """All cells. `busy` is the part of the machine's cores that was used meanwhile: where it is high, the figures are worse."""
    pythons = {"saturate_peers": environment("pacing"), "saturate_litellm": environment("litellm")}
    cells = [
        (window, limit, scenario, contender)
        for window in reversed(WINDOWS)  # the longest first
        for scenario in SCENARIOS
        for limit in LIMITS
        for contender in CONTENDERS
        if contender == "Headrace" or scenario in BESIDE
    ]
    if quick:
        cells = [cell for cell in cells if cell[:3] == ("token bucket", "requests", "told")]
    found: list[Json] = []
    places, starting, before = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(1), cpu()

    async def one(number: int, cell: tuple[str, str, str, str]) -> None:
        async with places:
            row = await run_cell(*cell, pythons, starting, seed=number, seconds=15.0 if quick else None)
        found.append(row)
        say(f"{len(found)}/{len(cells)} {', '.join(cell)}: {row['goodput']:.3f}, {row['per_success']:.2f} requests a success")

    await asyncio.gather(*(one(number, cell) for number, cell in enumerate(cells)))
    used, passed = (now - then for now, then in zip(cpu(), before, strict=True))
    return {"cells": found, "busy": used / passed, "in_flight": IN_FLIGHT, "deadline": DEADLINE, "at_once": AT_ONCE}


async def run_cell(
    window: str, limit: str, scenario: str, contender: str, pythons: dict[str, Path], starting: asyncio.Semaphore, *, seed: int,
    seconds: float | None,
) -> Json:  # fmt: skip
    """One contender in one scenario."""
    server, whole = WINDOWS[window]
    seconds = seconds or whole
    module, kind = CONTENDERS[contender]
    tells = contender != "Headrace" or not scenario.startswith("untold")
    given = {
        "kind": kind, "limits": LIMITS[limit] if tells else {}, "seconds": seconds, "in_flight": IN_FLIGHT, "deadline": DEADLINE,
    }  # fmt: skip
    # From the end on the server admits nothing: what was admitted is answered, and retries that come later do not count.
    told = {"latency": LATENCY, "outages": f"{seconds}-", "seed": seed, **LIMITS[limit], **server, **SCENARIOS[scenario]}
    result, meter = await pair.run(module, given, told, pythons.get(module), seconds + 600, starting)
    return {
        "window": window, "limit": limit, "scenario": scenario, "contender": contender, "seconds": seconds,
        **judged(result, meter), "result": result, "meter": {k: v for k, v in meter.items() if k != "timeline"},
    }  # fmt: skip


def judged(result: Json, meter: Json) -> Json:
    """`goodput`: the part of what the limit admitted beside another client that came to a record decided in time.

    `per_success` are requests for each such record, `given_up` the records lost for each.
    """
    ((name, admissible),) = meter["limits"]["admissible"].items()
    ours = admissible - meter["limits"]["foreign"][name]
    decided, completions = result["decided"], max(1, meter["completions"])
    each = 1 if name == "requests" else (meter["tokens"]["input"] + meter["tokens"]["output"]) / completions
    return {
        "goodput": decided * each / ours,
        "per_success": (meter["requests"] - meter["out"]) / max(1, decided),
        "given_up": result["given_up"] / max(1, decided),
    }


def cpu() -> tuple[float, float]:
    """Ticks of all cores that were used, and all there were."""
    fields = [float(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def tables(found: Json) -> Sequence[Table]:
    """One for each kind of server."""
    return [_table(found, window) for window in WINDOWS if any(cell["window"] == window for cell in found["cells"])]


def _table(found: Json, window: str) -> Table:
    title = f"Saturated, {window}: decided within {DEADLINE:.0f} s / admitted by the limit; requests and losses a decision"
    table = columns(title, "scenario", "limit on", *CONTENDERS)
    cells = {(c["contender"], c["limit"], c["scenario"]): c for c in found["cells"] if c["window"] == window}
    for scenario in SCENARIOS:
        for limit in LIMITS:
            row = [cells.get((contender, limit, scenario)) for contender in CONTENDERS]
            if any(row):
                table.add_row(scenario, limit, *(_cell(each) if each else "" for each in row))
    return table


def _cell(cell: Json) -> str:
    return f"{cell['goodput']:.3f}; {cell['per_success']:.2f}; {cell['given_up']:.2f}"


def expectations(found: Json) -> Sequence[Json]:
    """The worst of Headrace's cells, told and untold."""
    rows: list[Json] = []
    for word, goodput, requests in (("told", 0.97, 1.03), ("untold", 0.93, 1.10)):
        ours = [c for c in found["cells"] if c["contender"] == "Headrace" and _told(c["scenario"]) == word]
        if ours:
            least, most = min(ours, key=_goodput), max(ours, key=_per_success)
            rows.append(at_least(f"goodput, {word}, worst of {len(ours)}: {_where(least)}", least["goodput"], goodput))
            rows.append(at_most(f"requests a success, {word}, worst: {_where(most)}", most["per_success"], requests))
    return rows


def _told(scenario: str) -> str:
    """Whoever is told a limit that is not so has to find it out as who is told none."""
    return "told" if scenario == "told" else "untold"


def _goodput(cell: Json) -> float:
    return float(cell["goodput"])


def _per_success(cell: Json) -> float:
    return float(cell["per_success"])


def _where(cell: Json) -> str:
    return f"{cell['window']}, {cell['limit']}, {cell['scenario']}"
