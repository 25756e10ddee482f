"""Part `cost`: CPU of the client for each call and decision, all contenders against the same server, in interleaved rounds."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Rounds of calls for each contender and size. CPU in microseconds a call, as spreads.

    Many short rounds: what a core does in a second varies more from minute to minute than within a round, and ratios are of
    the same round.
    """
    calls, repeats = (200, 1) if quick else (800, 7)
    python = environment("instructor")
    found: dict[str, list[float]] = {f"{kind} {size}": [] for size in SIZES for kind in TITLES}
    async with serving() as served:
        for turn in range(repeats):
            for size in SIZES:
                for kind in TITLES:
                    given = {"base_url": served.base_url, "kind": kind, "size": size, "calls": calls, "in_flight": IN_FLIGHT}
                    theirs = kind == "instructor"
                    module = "tests.bench.inference.instructors" if theirs else CLIENTS
                    async with contender(module, given, python if theirs else None) as process:
                        result = await process.result(timeout=240.0)
                    found[f"{kind} {size}"].append(result["cpu_us"])
                    say(f"{turn + 1}/{repeats} {size} a call, {TITLES[kind]}: {result['cpu_us']:.0f} us a call")
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
    return {"calls": calls, "repeats": repeats, "cpu_us": {name: spread(each) for name, each in found.items()}, "ratios": ratios}


def tables(found: Json) -> Sequence[Table]:
    """CPU, and its ratios."""
    title = f"CPU of the client, us a call: {found['calls']} calls, {found['repeats']} interleaved rounds"
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
