"""Part `memory`: how much of it a client grows by over many decisions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.bench.inference.cost import CLIENTS, IN_FLIGHT, TITLES
from tests.bench.inference.part import Say, at_most, columns
from tests.bench.inference.server import serving
from tests.bench.processes import contender
from tests.bench.shared import Json


async def measure(*, quick: bool, say: Say) -> Json:
    """Growth of resident memory over so many decisions at 16 a call, in MB for each 100,000, after a tenth as warm-up."""
    decisions = 8_000 if quick else 200_000
    found: Json = {"decisions": decisions}
    async with serving() as served:
        for kind in ("headrace-audit", "parse"):
            given = {"base_url": served.base_url, "kind": kind, "size": 16, "calls": decisions // 16, "in_flight": IN_FLIGHT}
            async with contender(CLIENTS, given) as process:
                result = await process.result(timeout=600.0)
            grown = (result["rss_last"] - result["rss_first"]) / 1e6
            found[kind] = {"first_mb": result["rss_first"] / 1e6, "per_100k_mb": grown / (0.9 * decisions / 100_000)}
            say(f"memory, {TITLES[kind]}: {found[kind]['per_100k_mb']:.2f} MB for 100,000 decisions")
    return found


def tables(found: Json) -> Sequence[Table]:
    """One."""
    title = f"Resident memory over {found['decisions']:,} decisions at 16 a call"
    table = columns(title, "contender", "at first, MB", "growth for 100,000, MB")
    for kind in ("headrace-audit", "parse"):
        table.add_row(TITLES[kind], f"{found[kind]['first_mb']:.0f}", f"{found[kind]['per_100k_mb']:.2f}")
    return [table]


def expectations(found: Json) -> Sequence[Json]:
    """Flat."""
    return [at_most("memory for 100,000 decisions, MB", found["headrace-audit"]["per_100k_mb"], 1.0)]
