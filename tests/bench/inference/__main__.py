"""`make bench-inference`: what asking a model costs, beside its peers in the same run. Tables; with --json one JSON object last.

Peers run in pinned environments and processes of their own; the server is the sandbox, in a process of its own, on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from tests.bench.__main__ import machine
from tests.bench.inference import cost
from tests.bench.shared import Json


async def run(say: Callable[[str], None], *, quick: bool) -> Json:
    """All measurements, one after the other."""
    begun = time.monotonic()
    found: Json = {"machine": machine(), "quick": quick}
    counts = {"calls": 200, "repeats": 1} if quick else {"calls": 2500, "repeats": 3}
    found["cost"] = await cost.measure(say=say, **counts)
    found["memory"] = await cost.memory(decisions=8_000 if quick else 200_000, say=say)
    found["expectations"] = expectations(found)
    found["seconds"] = time.monotonic() - begun
    found["machine"]["load_after"] = os.getloadavg()[0]
    return found


def expectations(found: Json) -> list[Json]:
    """Name, measured, goal and whether it holds. Ratios are medians of rounds."""
    ratios = found["cost"]["ratios"]
    rows = [
        ("CPU of a call, transport / bare post", ratios["transport / bare post, 1 a call"]["median"], 1.3),
        ("CPU of a call, whole path / bare post", ratios["whole path / bare post, 1 a call"]["median"], 2.5),
        (
            "CPU of a decision at 16 a call / create() for each record",
            ratios["a decision at 16 a call, whole path / create() for each record"]["median"],
            0.06,
        ),
        ("memory for 100,000 decisions, MB", found["memory"]["headrace-audit"]["per_100k_mb"], 1.0),
    ]
    return [{"name": name, "measured": value, "goal": f"<= {goal:g}", "holds": value <= goal} for name, value, goal in rows]


def show(found: Json, console: Console) -> None:
    """Print all tables."""
    measured = found["cost"]
    table = Table(title=f"CPU of the client, us a call: {measured['calls']} calls, {measured['repeats']} interleaved rounds")
    for name in ("contender", "1 a call: min", "median", "max", "16 a call: min", "median", "max"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for kind, title in cost.TITLES.items():
        cells = [measured["cpu_us"][f"{kind} {size}"][k] for size in cost.SIZES for k in ("min", "median", "max")]
        table.add_row(title, *(f"{cell:.0f}" for cell in cells))
    console.print(table)
    table = Table(title="Ratios of CPU, round by round")
    for name in ("ratio", "min", "median", "max"):
        table.add_column(name, justify="left" if name == "ratio" else "right")
    for name, value in measured["ratios"].items():
        table.add_row(name, *(f"{value[k]:.3f}" for k in ("min", "median", "max")))
    console.print(table)
    table = Table(title="What was expected")
    for name in ("", "measured", "goal", ""):
        table.add_column(name)
    for row in found["expectations"]:
        table.add_row(row["name"], f"{row['measured']:.3f}", row["goal"], "holds" if row["holds"] else "missed")
    console.print(table)


def main() -> int:
    """Exit status 0 when everything was measured, whatever came out."""
    parser = argparse.ArgumentParser(prog="make bench-inference", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, proves nothing")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    found = asyncio.run(run(lambda line: console.print(line, highlight=False), quick=chosen.quick))
    show(found, console)
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
