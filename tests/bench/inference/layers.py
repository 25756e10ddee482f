"""Part `layers`: CPU of a call with masking before it, with a cache that has not the answer, and with one that has it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.bench.inference.cost import IN_FLIGHT, SIZES
from tests.bench.inference.part import Say, columns
from tests.bench.inference.server import serving
from tests.bench.processes import contender
from tests.bench.shared import Json, spread

CLIENTS = "tests.bench.inference.layered"
TITLES = {
    "whole": "whole path, nothing more",
    "mask": "masking before it: an identifier, 300 characters of text",
    "miss": "cache before it, answer not there: looked up and kept",
    "hit": "cache before it, answer there: no call",
}


async def measure(*, quick: bool, say: Say) -> Json:
    """Interleaved rounds of calls for each kind and size. CPU in microseconds a call, as spreads; ratios round by round."""
    calls, repeats = (200, 1) if quick else (800, 7)
    found: dict[str, list[float]] = {f"{kind} {size}": [] for size in SIZES for kind in TITLES}
    async with serving() as served:
        for turn in range(repeats):
            for size in SIZES:
                for kind, title in TITLES.items():
                    given = {"base_url": served.base_url, "kind": kind, "size": size, "calls": calls, "in_flight": IN_FLIGHT}
                    async with contender(CLIENTS, given) as process:
                        result = await process.result(timeout=240.0)
                    found[f"{kind} {size}"].append(result["cpu_us"])
                    say(f"{turn + 1}/{repeats} {size} a call, {title}: {result['cpu_us']:.0f} us a call")
    ratios = {
        f"{kind} {size}": spread([a / b for a, b in zip(found[f"{kind} {size}"], found[f"whole {size}"], strict=True)])
        for size in SIZES
        for kind in TITLES
    }
    return {"calls": calls, "repeats": repeats, "cpu_us": {name: spread(each) for name, each in found.items()}, "ratios": ratios}


def tables(found: Json) -> Sequence[Table]:
    """One."""
    title = f"CPU of the client with one more layer, us a call: {found['calls']} calls, {found['repeats']} interleaved rounds"
    heads = [f"{size} a call: {name}" for size in SIZES for name in ("median", "ratio")]
    table = columns(title, "layer", *heads)
    for kind, name in TITLES.items():
        cells = []
        for size in SIZES:
            cells += [f"{found['cpu_us'][f'{kind} {size}']['median']:.0f}", f"{found['ratios'][f'{kind} {size}']['median']:.2f}"]
        table.add_row(name, *cells)
    return [table]


def expectations(found: Json) -> Sequence[Json]:
    """No goal: rows to know."""
    return []
