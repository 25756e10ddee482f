"""Headrace in `outage`: the engine itself, in process and without Kafka: records come at a rate, outcomes are counted.

The way of a record is that of a worker: pipeline, lanes, batches of one, the scorer as agents/engine/inference.py composes it. In
place of Kafka stands a list of what has come; reading pauses at the bound of a worker.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import replace
from typing import Any

import orjson

from agents.engine.inference import Inference
from agents.engine.model_watch import ModelWatch
from agents.engine.pipeline import Pipeline
from agents.engine.runtime import Engine
from agents.engine.verdicts import Site
from agents.settings import Settings
from models.contract import Ask
from tests.bench.inference.saturate import Tally, main
from tests.bench.inference.work import PROMPT
from tests.bench.shared import NOW_MS, Risk, lean_agent, record
from tests.support.partitions import ListedSlot, LonePartition
from topics.handover import Finished, Slot
from topics.record import Raw

SOURCE = "bench.applications"
LONGEST = 300.0
"""Seconds after the last record within which all have to be decided."""


class Source(LonePartition):
    """Keeps when each record came, and counts what became of it."""

    def __init__(self) -> None:
        super().__init__(SOURCE)
        self.came = dict[int, float]()
        self.outcomes = Counter[str]()
        self.seconds: list[float] = []
        self.all_done = asyncio.Event()

    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        """A record has its outcome: counted by who decided and how."""
        came = self.came.pop(slot.records[index].offset)
        self.seconds.append(asyncio.get_running_loop().time() - came)
        for made in outcome.outbound:
            if made.purpose == "decision":
                body = orjson.loads(made.value or b"")
                # An outcome that nobody decided is "review", whoever asked for it.
                self.outcomes["model" if body["tier"] == "model" else f"{body['tier']}, {body['outcome']}"] += 1
            elif made.purpose == "dead_letter":
                self.outcomes["dead letter"] += 1
        if not self.came:
            self.all_done.set()


async def run(base_url: str, given: dict[str, Any]) -> Tally:
    """`rate` records a second for `seconds`; then all that are left get their outcome. `agent` says what without an answer."""
    deadline = f"{given['deadline']:.0f}s"
    lean = lean_agent(SOURCE, "bench.decisions", size=1, within="0ms", in_flight=given["in_flight"], deadline=deadline)
    agent = replace(lean, scorer=Ask(Risk, PROMPT), on_no_answer=given["agent"])
    settings = Settings(
        model_base_url=base_url, model_name="bench", model_concurrency=given["in_flight"], model_rpm=given["limits"].get("rpm")
    )
    inference = Inference(settings, [agent], ModelWatch())
    scorer = inference.scorer(agent, manifest="bench", on_call=lambda call: None)
    pipeline = Pipeline(agent, Site(manifest="bench"), joins=None, judgements=None, dead_letters="dlq", wall_ms=lambda: NOW_MS)
    failed: list[BaseException] = []
    engine = Engine(agent, pipeline, scorer, on_fatal=failed.append, owned=inference.owned(agent))
    source = Source()
    await engine.take(source)
    came = await feed(engine, source, given, settings.hold_records)
    async with asyncio.timeout(LONGEST):
        await source.all_done.wait()
    await engine.close()
    assert not failed, failed
    tally = Tally()
    tally.seconds = source.seconds
    tally.decided, tally.given_up = source.outcomes["model"], came - source.outcomes["model"]
    tally.errors = {name: count for name, count in source.outcomes.items() if name != "model"}
    return tally


async def feed(engine: Engine, source: Source, given: dict[str, Any], bound: int) -> int:
    """Records as they come; what is past the bound waits where it is, as in Kafka. How many came."""
    loop = asyncio.get_running_loop()
    begun, number, backlog = loop.time(), 0, deque[tuple[Raw, float]]()
    total = int(given["seconds"] * given["rate"])
    while number < total or backlog:
        while number < total and begun + number / given["rate"] <= loop.time():
            key, value, _ = record(number)
            backlog.append((Raw(SOURCE, value, key, offset=number, timestamp=NOW_MS), begun + number / given["rate"]))
            number += 1
        while backlog and len(source.came) < bound:
            raw, at = backlog.popleft()
            source.came[raw.offset] = at
            engine.offer(ListedSlot([raw], source))
        await asyncio.sleep(0.005)
    source.all_done.clear() if source.came else source.all_done.set()
    return number


if __name__ == "__main__":
    main(run)
