"""Part `outage`: records come steadily, the endpoint is out for a minute, and comes back. Measured from the moment it is back.

Headrace is the engine itself without Kafka (outage_headrace.py), once for an agent that waits and once for one that reviews
what has no answer. Beside it LiteLLM's Router, asked about each record when it comes. All are told the limit. Of connections that
are refused the sandbox sees only those that were open before.
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

RPM, RATE = 3000, 48.0
"""The limit is 50 a second, and a little less comes: a backlog is worked off at the limit."""
BEGIN, LENGTH, AFTER = 20.0, 60.0, 30.0
WITHIN = 5.0
"""Seconds after the endpoint is back from which on the goodput counts."""
LATENCY = "lognormal:300ms:0.4"
CONTENDERS: dict[str, tuple[str, Json]] = {
    "Headrace, waits": ("outage_headrace", {"agent": "wait"}),
    "Headrace, reviews": ("outage_headrace", {"agent": "review"}),
    "LiteLLM Router, defaults": ("outage_litellm", {}),
    "LiteLLM Router, allowed_fails=3, cooldown_time=5": ("outage_litellm", {"router": {"allowed_fails": 3, "cooldown_time": 5}}),
}
RUNS = (("503", "Headrace"), ("503", "LiteLLM"), ("refused", "Headrace"))
"""One after the other, two contenders at a time: more at once would measure the machine."""


async def measure(*, quick: bool, say: Say) -> Json:
    """Each contender has a server of its own."""
    python = environment("litellm")
    length, after, runs = (8.0, 12.0, RUNS[:1]) if quick else (LENGTH, AFTER, RUNS)
    rows: list[Json] = []
    starting = asyncio.Semaphore(2)

    async def one(kind: str, name: str) -> None:
        row = await run_one(kind, name, python, length, after, starting)
        rows.append(row)
        say(f"outage, {kind}, {name}: {row['sent_into']} requests into it, {row['back']:.2f} of the goodput after {WITHIN:.0f} s")

    for kind, whose in runs:
        await asyncio.gather(*(one(kind, name) for name in CONTENDERS if name.startswith(whose)))
    return {"rows": rows, "length": length, "rate": RATE, "limit": RPM / 60}


async def run_one(
    kind: str, name: str, python: Path, length: float, after: float, starting: asyncio.Semaphore
) -> Json:
    """One contender through one outage."""
    module, more = CONTENDERS[name]
    begin, end = BEGIN, BEGIN + length
    given = {
        "kind": "", "limits": {"rpm": RPM}, "seconds": end + after, "rate": RATE, "in_flight": 64, "deadline": 20.0, **more,
    }  # fmt: skip
    server = {"latency": LATENCY, "rpm": RPM, "outages": f"{begin}-{end}:{kind}"}
    peer = python if module.endswith("litellm") else None
    result, meter = await pair.run(module, given, server, peer, end + after + 420, starting)
    records = result["decided"] + result["given_up"]
    seconds = dict(meter["timeline"])
    return {
        "kind": kind, "contender": name, "records": records, "by_model": result["decided"] / records, "without": result["errors"],
        "sent_into": meter["out"], "result": result, **judged(seconds, end), "timeline": meter["timeline"],
    }  # fmt: skip


def judged(seconds: dict[int, Json], end: float) -> Json:
    """`back`: answered in the five seconds from WITHIN on / what comes or the limit allows, whichever is less.

    `first`: answered in the seconds until then. `burst`: the most requests that came in one second after the outage / the limit.
    """

    def count(name: str, begin: float, until: float) -> int:
        return sum(int(counts.get(name, 0)) for second, counts in seconds.items() if begin <= second < until)

    came = [count("came", second, second + 1) for second in range(int(end), int(end) + 30)]
    return {
        "back": count("answered", end + WITHIN, end + 2 * WITHIN) / (WITHIN * min(RATE, RPM / 60)),
        "first": count("answered", end, end + WITHIN) / (WITHIN * min(RATE, RPM / 60)),
        "burst": max(came) / (RPM / 60),
    }


def tables(found: Json) -> Sequence[Table]:
    """One."""
    title = f"Outage of {found['length']:.0f} s at {found['rate']:.0f} records/s, limit {found['limit']:.0f}/s; since it is back"
    names = ("requests into it", "goodput, first 5 s", "from 5 s on", "burst / limit", "by model", "otherwise")
    table = columns(title, "outage, contender", *names)
    for row in found["rows"]:
        otherwise = ", ".join(f"{count} {name}" for name, count in row["without"].items()) or "-"
        table.add_row(
            f"{row['kind']}, {row['contender']}", str(row["sent_into"]), f"{row['first']:.2f}", f"{row['back']:.2f}",
            f"{row['burst']:.2f}", f"{row['by_model']:.1%}", otherwise,
        )  # fmt: skip
    return [table]


def expectations(found: Json) -> Sequence[Json]:
    """Of Headrace, the worst of its rows."""
    ours = [row for row in found["rows"] if row["contender"].startswith("Headrace")]
    waiting = [row for row in ours if row["contender"].endswith("waits")]
    reviewing = [row for row in ours if row["contender"].endswith("reviews")]
    astray = sum(row["records"] - row["result"]["decided"] for row in waiting)
    astray += sum(row["result"]["given_up"] - row["without"].get("none, review", 0) for row in reviewing)
    return [
        at_most("records that were not decided as their agent says, in outages", astray, 0),
        at_least("goodput from 5 s after the end of an outage on", min(row["back"] for row in ours), 0.9),
        at_most("burst after an outage / limit", max(row["burst"] for row in ours), 1.1),
    ]
