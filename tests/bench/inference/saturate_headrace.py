"""Headrace in `goodput`: ChatScorer behind breaker and admission, asked while there is room, as the engine asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.arrival import Coming, on_arrival
from models.gates.breaker_gate import BreakerGate
from tests.bench.inference.saturate import MODEL, Tally, ended, main, window
from tests.bench.inference.work import PROMPT, Judged, Loan, loans


async def run(base_url: str, given: dict[str, Any]) -> Tally:
    """`limits` are what it is told; none: nothing."""
    loop, tally, records = asyncio.get_running_loop(), Tally(), loans(512)
    most = given["in_flight"]
    admission = AdmissionGate(Limits(**given["limits"], concurrency=most, queue=most))
    gates = (BreakerGate(base_url), admission)
    line = Line(base_url, None, MODEL, gates=gates, pacer=admission, connections=most)
    scorer = ChatScorer(Ask(Judged, PROMPT), line, agent="bench")
    wake = asyncio.Event()
    coming = Coming(wake.set)
    scorer.on_room(wake.set)
    asked: set[asyncio.Future[Any]] = set()
    (until, over), number = window(given), 0

    async def ask(record: Loan, name: str, arrived: Callable[[], None]) -> None:
        on_arrival(arrived)
        begun = loop.time()
        (answer,) = await scorer.score([Question(name, record)], begun + given["deadline"])
        if answer.status == "answered":
            tally.won(loop.time() - begun)
        elif loop.time() < over:
            tally.lost(answer.status)
        arrived()

    def done(task: asyncio.Future[Any]) -> None:
        asked.discard(task)
        wake.set()

    while loop.time() < until:
        while len(asked) < most and scorer.room(coming.count):
            number += 1
            task = asyncio.ensure_future(ask(records[number % 512], f"r{number}", coming.start()))
            asked.add(task)
            task.add_done_callback(done)
            if number % 16 == 0:
                await asyncio.sleep(0)
        wake.clear()
        try:
            async with asyncio.timeout_at(until):
                await wake.wait()
        except TimeoutError:
            break
    await ended(list(asked))
    await scorer.close()
    return tally


if __name__ == "__main__":
    main(run)
