"""LiteLLM's Router in `outage`: each record is asked about when it comes; what fails has no decision of the model."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.bench.inference.saturate import Tally, main
from tests.bench.inference.saturate_litellm import asking
from tests.bench.inference.work import loans


async def run(base_url: str, given: dict[str, Any]) -> Tally:
    """`rate` records a second for `seconds`, as many at a time as there are."""
    loop, tally, records = asyncio.get_running_loop(), Tally(), loans(512)
    ask, tasks = asking(base_url, given), set[asyncio.Task[None]]()

    async def one(number: int) -> None:
        begun = loop.time()
        try:
            async with asyncio.timeout(given["deadline"]):
                assert await ask(records[number % 512], number)
        except Exception as error:  # noqa: BLE001 - whatever it raises, the record has no answer
            tally.lost(type(error).__name__)
        else:
            tally.won(loop.time() - begun)

    begun = loop.time()
    for number in range(int(given["seconds"] * given["rate"])):
        await asyncio.sleep(max(0.0, begun + number / given["rate"] - loop.time()))
        task = asyncio.ensure_future(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return tally


if __name__ == "__main__":
    main(run)
