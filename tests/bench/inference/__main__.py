"""`make bench-inference`: what asking a model costs, beside its peers in the same run. Tables; with --json one JSON object last.

Peers run in pinned environments and processes of their own; the server is the sandbox, in a process of its own, on loopback.
`--only PART` (may be given more than once) runs some parts alone; each part is a module (see part.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.bench.__main__ import machine
from tests.bench.inference import cost, goodput, layers, memory, outage, poison, quality, spend
from tests.bench.inference.part import Part, Say
from tests.bench.shared import Json

PARTS: dict[str, Part] = {
    "cost": cost,
    "layers": layers,
    "memory": memory,
    "poison": poison,
    "quality": quality,
    "spend": spend,
    "goodput": goodput,
    "outage": outage,
}
"""In the order in which they run, by the name under which their results stand in the JSON object."""


async def run(say: Say, *, only: Sequence[str], quick: bool) -> Json:
    """The parts chosen, one after the other."""
    begun = time.monotonic()
    found: Json = {"machine": machine(), "quick": quick, "expectations": []}
    for name, part in PARTS.items():
        if only and name not in only:
            continue
        found[name] = await part.measure(quick=quick, say=say)
        found["expectations"] += part.expectations(found[name])
    found["seconds"] = time.monotonic() - begun
    found["machine"]["load_after"] = os.getloadavg()[0]
    return found


def show(found: Json, console: Console) -> None:
    """Print all tables."""
    for name, part in PARTS.items():
        if name in found:
            for table in part.tables(found[name]):
                console.print(table)
    if not found["expectations"]:
        return
    expected = Table(title="What was expected")
    for name in ("", "measured", "goal", ""):
        expected.add_column(name)
    for row in found["expectations"]:
        expected.add_row(row["name"], f"{row['measured']:.3f}", row["goal"], "holds" if row["holds"] else "missed")
    console.print(expected)


def main() -> int:
    """Exit status 0 when everything was measured, whatever came out."""
    parser = argparse.ArgumentParser(prog="make bench-inference", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, proves nothing")
    names = ", ".join(PARTS)
    parser.add_argument("--only", action="append", choices=tuple(PARTS), default=[], metavar="PART", help=f"one of {names}")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    found = asyncio.run(run(lambda line: console.print(line, highlight=False), only=chosen.only, quick=chosen.quick))
    show(found, console)
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
