"""Part `layers`: CPU of a call with masking before it, with a cache that has not the answer, and with one that has it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.bench.inference.cost import SIZES, in_turns
from tests.bench.inference.part import Say, columns
from tests.bench.inference.server import serving
from tests.bench.shared import Json, spread

CLIENTS = "tests.bench.inference.layered"
TITLES = {
    "whole": "whole path, nothing more",
    "mask": "masking before it: an identifier, 300 characters of text",
    "miss": "cache before it, answer not there: looked up and kept",
    "hit": "cache before it, answer there: no call",
}


async def measure(*, quick: bool, say: Say) -> Json:
    """CPU in microseconds a call, as spreads over rounds, and ratios round by round."""
    calls, rounds = (50, 2) if quick else (100, 40)
    found: dict[str, list[float]] = {}
    async with serving() as served:
        for size in SIZES:
            clients = dict.fromkeys(TITLES, (CLIENTS, None))
            costs = await in_turns(clients, {"base_url": served.base_url, "size": size}, calls=calls, rounds=rounds)
            for kind, each in costs.items():
                found[f"{kind} {size}"] = each
                say(f"{size} a call, {TITLES[kind]}: {spread(each)['median']:.0f} us a call")
    ratios = {
        f"{kind} {size}": spread([a / b for a, b in zip(found[f"{kind} {size}"], found[f"whole {size}"], strict=True)])
        for size in SIZES
        for kind in TITLES
    }
    return {"calls": calls, "rounds": rounds, "cpu_us": {name: spread(each) for name, each in found.items()}, "ratios": ratios}


def tables(found: Json) -> Sequence[Table]:
    """One."""
    title = f"CPU of the client with one more layer, us a call: {found['rounds']} rounds of {found['calls']} calls"
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
