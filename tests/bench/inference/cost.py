"""CPU of the client for each call and each decision, every contender against the same server, in interleaved rounds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench.inference.server import serving
from tests.bench.processes import ROOT, contender
from tests.bench.shared import Json, spread

CLIENTS = "tests.bench.inference.clients"
IN_FLIGHT = 8
SIZES = (1, 16)
TITLES = {
    "post": "bare low-level post, reply not read",
    "headrace": "Headrace, transport: gates, prompt, alignment, validation",
    "headrace-audit": "Headrace, whole path: the same, each Call written and hashed",
    "create": "chat.completions.create(), pydantic",
    "parse": "chat.completions.parse()",
    "instructor": "instructor 1.17",
}


def environment(name: str) -> Path:
    """A peer's virtual environment, made from its pinned, hashed requirements the first time."""
    folder, wanted = ROOT / ".headrace" / f"bench-{name}", Path(__file__).with_name(f"requirements-{name}.txt")
    python, done = folder / "bin" / "python", folder / ".done"
    if not done.exists() or done.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = ["-m", "pip", "--disable-pip-version-check", "-q", "install", "--require-hashes", "-r", str(wanted)]
        subprocess.run([str(python), *install], check=True)
        done.write_text(wanted.read_text())
    return python


async def measure(*, calls: int, repeats: int, say: Callable[[str], None]) -> Json:
    """`repeats` rounds of `calls` calls for each contender and size. CPU in microseconds a call, as spreads."""
    python = environment("instructor")
    found: dict[str, list[float]] = {f"{kind} {size}": [] for size in SIZES for kind in TITLES}
    async with serving() as base_url:
        for turn in range(repeats):
            for size in SIZES:
                for kind in TITLES:
                    given = {"base_url": base_url, "kind": kind, "size": size, "calls": calls, "in_flight": IN_FLIGHT}
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


async def memory(*, decisions: int, say: Callable[[str], None]) -> Json:
    """Growth of resident memory over so many decisions at 16 a call, in MB for each 100,000, after a tenth as warm-up."""
    found: Json = {"decisions": decisions}
    async with serving() as base_url:
        for kind in ("headrace-audit", "parse"):
            given = {"base_url": base_url, "kind": kind, "size": 16, "calls": decisions // 16, "in_flight": IN_FLIGHT}
            async with contender(CLIENTS, given) as process:
                result = await process.result(timeout=600.0)
            grown = (result["rss_last"] - result["rss_first"]) / 1e6
            found[kind] = {"first_mb": result["rss_first"] / 1e6, "per_100k_mb": grown / (0.9 * decisions / 100_000)}
            say(f"memory, {TITLES[kind]}: {found[kind]['per_100k_mb']:.2f} MB for 100,000 decisions")
    return found
