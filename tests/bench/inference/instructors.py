"""The same with instructor, which runs in a virtual environment of its own: nothing of Headrace is imported but the work."""

from __future__ import annotations

import asyncio
from typing import Any

import instructor
import openai

from tests.bench.contenders.meter import configuration, tune_collector
from tests.bench.inference.loop import Turn, slices
from tests.bench.inference.work import Answers, Loan, messages

MODEL = "bench"


def asking(base_url: str) -> Turn:
    """`response_model`, as its documentation has it."""
    sdk = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    patched: Any = instructor.from_openai(sdk, mode=instructor.Mode.JSON_SCHEMA)

    async def turn(records: list[Loan], first: int) -> int:
        found = await patched.chat.completions.create(model=MODEL, response_model=Answers, messages=messages(records, first))
        return len(found.answers)

    return turn


async def _main(given: dict[str, Any]) -> None:
    await slices(asking(given["base_url"]), given)


if __name__ == "__main__":
    given = configuration()
    tune_collector()
    asyncio.run(_main(given))
