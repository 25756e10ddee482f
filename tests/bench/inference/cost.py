"""Part `cost`: CPU of the client for each call and decision, all contenders against the same server, in interleaved rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rich.table import Table

from tests.bench.inference.environment import environment
from tests.bench.inference.part import Say, at_most, columns
from tests.bench.inference.server import serving
from tests.bench.processes import contender
from tests.bench.shared import Json, spread

CLIENTS = "tests.bench.inference.clients"
IN_FLIGHT = 8
SIZES = (1, 16)
TITLES = {
    "post": "bare low-level post, reply not read",
    "headrace": "Headrace, transport: breaker, admission, prompt, alignment, validation",
    "headrace-audit": "Headrace, whole path: the same, budget and watch, each Call written and hashed",
    "create": "chat.completions.create(), pydantic",
    "parse": "chat.completions.parse()",
    "instructor": "instructor 1.17",
}


async def measure(*, quick: bool, say: Say) -> Json:
    """CPU in microseconds a call, as spreads over rounds, and ratios round by round."""
    calls, rounds = (50, 2) if quick else (100, 40)
    theirs = ("tests.bench.inference.instructors", environment("instructor"))
    clients = {kind: theirs if kind == "instructor" else (CLIENTS, None) for kind in TITLES}
    found: dict[str, list[float]] = {}
    async with serving() as served:
        for size in SIZES:
            costs = await in_turns(clients, {"base_url": served.base_url, "size": size}, calls=calls, rounds=rounds)
            for kind, each in costs.items():
                found[f"{kind} {size}"] = each
                say(f"{size} a call, {TITLES[kind]}: {spread(each)['median']:.0f} us a call")
    pairs = {
        "transport / bare post, 1 a call": ("headrace 1", "post 1", 1),
        "whole path / bare post, 1 a call": ("headrace-audit 1", "post 1", 1),
        "whole path / create(), 1 a call": ("headrace-audit 1", "create 1", 1),
        "whole path / parse(), 1 a call": ("headrace-audit 1", "parse 1", 1),
        "whole path / instructor, 1 a call": ("headrace-audit 1", "instructor 1", 1),
        "a decision at 16 a call, whole path / create() for each record": ("headrace-audit 16", "create 1", 16),
        "a decision at 16 a call, whole path / create() of 16": ("headrace-audit 16", "create 16", 1),
    }
    ratios = {
        name: spread([a / b / per for a, b in zip(found[x], found[y], strict=True)]) for name, (x, y, per) in pairs.items()
    }
    return {"calls": calls, "rounds": rounds, "cpu_us": {name: spread(each) for name, each in found.items()}, "ratios": ratios}


async def in_turns(
    clients: Mapping[str, tuple[str, Path | None]], given: Json, *, calls: int, rounds: int
) -> dict[str, list[float]]:
    """CPU of a call, for each kind and round. `clients` are module and Python by kind.

    All are there at once, and one at a time makes its `calls`, in turns: what a core does changes from second to second, and
    in a round of tenths of a second each they all have the same core.
    """
    costs: dict[str, list[float]] = {kind: [] for kind in clients}
    async with AsyncExitStack() as stack:
        running = {}
        for kind, (module, python) in clients.items():
            told = {**given, "kind": kind, "slices": True, "calls": calls, "in_flight": IN_FLIGHT}
            running[kind] = await stack.enter_async_context(contender(module, told, python))
        for process in running.values():
            await process.told(120.0)
        for _ in range(rounds):
            for kind, process in running.items():
                costs[kind].append((await process.told(60.0, "go"))["cpu_us"])
    return costs


def tables(found: Json) -> Sequence[Table]:
    """CPU, and its ratios."""
    title = f"CPU of the client, us a call: {found['rounds']} rounds of {found['calls']} calls, one contender after the other"
    costs = columns(title, "contender", "1 a call: min", "median", "max", "16 a call: min", "median", "max")
    for kind, name in TITLES.items():
        cells = [found["cpu_us"][f"{kind} {size}"][k] for size in SIZES for k in ("min", "median", "max")]
        costs.add_row(name, *(f"{cell:.0f}" for cell in cells))
    ratios = columns("Ratios of CPU, round by round", "ratio", "min", "median", "max")
    for name, value in found["ratios"].items():
        ratios.add_row(name, *(f"{value[k]:.3f}" for k in ("min", "median", "max")))
    return [costs, ratios]


def expectations(found: Json) -> Sequence[Json]:
    """Ratios are medians of rounds."""

    def median(name: str) -> float:
        return float(found["ratios"][name]["median"])

    alone = "a decision at 16 a call, whole path / create() for each record"
    return [
        at_most("CPU of a call, transport / bare post", median("transport / bare post, 1 a call"), 1.3),
        at_most("CPU of a call, whole path / bare post", median("whole path / bare post, 1 a call"), 2.5),
        at_most("CPU of a decision at 16 a call / create() for each record", median(alone), 0.06),
    ]
