"""`make bench`: one run on one Apache Kafka; tables, and with --json one JSON object as the last line. See docs/performance.md.

It measures and reports; only a difference in what two contenders decided, or a run that fails, is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.bench import cost, flow, latency, report, topics
from tests.bench.processes import ROOT
from tests.bench.shared import Json
from topics.dev_broker import ApacheKafka


async def run(bootstrap: str, data_dir: Path, console: Console, *, quick: bool) -> Json:
    """All measurements, one after the other."""

    def say(line: str) -> None:
        console.print(line, highlight=False)

    begun = time.monotonic()
    await topics.prepare(bootstrap)
    counts = {"count": 3000, "repeats": 1} if quick else {"count": 60_000, "repeats": 3}
    found: Json = {"machine": machine(), "quick": quick}
    found["cost"] = await cost.measure(bootstrap, data_dir, say=say, **counts)
    rates = found["cost"]["rate"]
    found["latency"] = await latency.all_of(
        bootstrap, data_dir, half=rates["headrace-transactional"]["median"] / 2, seconds=4.0 if quick else 10.0, say=say
    )
    backlog = 60_000 if quick else 500_000
    say(f"filling a backlog of {backlog:,} records")
    await topics.fill(bootstrap, "bench.backlog", backlog)
    by_hand = max(rates[name]["median"] for name in ("hand-send-transactional", "hand-batch-transactional"))
    window = 3.0 if quick else 10.0
    found["goodput"] = await flow.goodput(bootstrap, "bench.backlog", data_dir, window=window, machine=by_hand, say=say)
    found["scaling"] = await flow.scaling(bootstrap, "bench.backlog", data_dir, window=window, say=say)
    found["memory"] = await flow.memory(
        bootstrap, "bench.backlog", data_dir, backlog=backlog, seconds=4.0 if quick else 20.0, say=say
    )
    found["expectations"] = report.expectations(found)
    found["seconds"] = time.monotonic() - begun
    found["machine"]["load_after"] = os.getloadavg()[0]
    return found


def machine() -> Json:
    """What it ran on. The load before the run says how far to trust it."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }


def main() -> int:
    """Exit status 0 when everything was measured, whatever came out."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a short run: shows that it works, proves nothing")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    data_dir = Path(tempfile.mkdtemp(prefix="bench-", dir=_folder()))
    try:
        with ApacheKafka(ROOT / ".headrace") as broker:
            found = asyncio.run(run(broker.bootstrap, data_dir, console, quick=chosen.quick))
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)
    report.show(found, console)
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _folder() -> Path:
    folder = ROOT / ".headrace"
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
