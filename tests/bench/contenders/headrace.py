"""Headrace itself: `agents.engine.process.Worker` with the lean agent, audits off, so that it publishes decisions and receipts.

Runs until `count` outcomes are committed, or without one until SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.cli.worker import run_loop, tune_collector
from agents.engine.process import Worker
from agents.settings import Settings
from models.contract import Answer, Question, Scorer
from models.scorers.instant import InstantScorer
from tests.bench.contenders.meter import Meter, configuration, report
from tests.bench.shared import NOW_MS, assess, lean_agent


class Slow:
    """A model that takes `seconds` for each call, or never answers (None)."""

    name = "slow"

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._inner = InstantScorer(assess)

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        if self._seconds is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(self._seconds)
        return await self._inner.score(questions, deadline)

    async def close(self) -> None:
        """See models.contract.Scorer."""


async def run(given: dict[str, Any]) -> int:
    """One worker, from start to the end of its drain."""
    meter = Meter()
    batch = {name: given[name] for name in ("size", "within", "in_flight", "deadline") if name in given}
    agent = lean_agent(given["source"], given["decisions"], **batch)
    scorer: Scorer = Slow(given["model_seconds"]) if "model_seconds" in given else InstantScorer(assess)
    settings = Settings(
        kafka=given["bootstrap"], delivery=given["delivery"], group_prefix=given["group"], data_dir=given["data_dir"],
        commit_gap=given.get("commit_gap", 0.0), session_timeout=10.0, drain_timeout=given.get("drain", 2.0),
    )  # fmt: skip
    worker = Worker(
        [agent], settings, say=lambda line: print(line, file=sys.stderr), scorer_for=lambda _: scorer, audit=False,
        wall_ms=lambda: NOW_MS,
    )  # fmt: skip
    watching = asyncio.create_task(watch(worker, meter, given.get("count")))
    status = await worker.run()
    watching.cancel()
    results = await asyncio.gather(watching, return_exceptions=True)
    stats = worker.running[0].app.runtime.stats
    found = results[0] if isinstance(results[0], dict) else meter.result(stats.outcomes)
    found |= {
        "commits": stats.commits, "status": status, "first_at": meter.first_at,
        "calls": worker.running[0].engine.stats.batches, "pauses": dict(stats.pauses),
    }  # fmt: skip
    report(found)
    return status


async def watch(worker: Worker, meter: Meter, count: int | None) -> dict[str, Any]:
    """Start the meter at the first record handed over; stop the worker once all are committed."""
    while not worker.running:  # noqa: ASYNC110 - the worker has no event for it
        await asyncio.sleep(0.002)
    engine, stats = worker.running[0].engine, worker.running[0].app.runtime.stats
    offer = engine.offer

    def first(slot: Any) -> None:
        meter.start()
        engine.offer = offer  # type: ignore[method-assign]  # the wrapper is for the first list of records only
        offer(slot)

    engine.offer = first  # type: ignore[method-assign]  # see above
    while count is None or stats.outcomes < count:  # noqa: ASYNC110 - counters, read from outside
        await asyncio.sleep(0.01)
    found = meter.result(stats.outcomes)
    worker.stop()
    return found


def main() -> None:
    """As `headrace worker` runs it: on uvloop, with what was imported frozen."""
    given = configuration()
    Path(given["data_dir"]).mkdir(parents=True, exist_ok=True)
    tune_collector()
    raise SystemExit(run_loop(run(given)))


main()
