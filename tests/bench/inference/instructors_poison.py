"""instructor asked about a batch that the model refuses: it sends the whole batch again, as `max_retries` has it."""

from __future__ import annotations

import asyncio
from typing import Any

import instructor
import openai

from tests.bench.contenders.meter import configuration, report
from tests.bench.inference.instructors import MODEL
from tests.bench.inference.work import Answers, messages, poisoned


async def run(given: dict[str, Any]) -> dict[str, Any]:
    """One batch for each place of the poison: how many of its records were answered."""
    sdk = openai.AsyncOpenAI(base_url=given["base_url"], api_key="instructor", max_retries=0)
    patched: Any = instructor.from_openai(sdk, mode=instructor.Mode.JSON_SCHEMA)
    answered = []
    for place in given["places"]:
        records = poisoned(given["size"], place)
        try:
            found = await patched.chat.completions.create(
                model=MODEL, response_model=Answers, messages=messages(records, 0), max_retries=given["retries"]
            )
        except Exception:  # noqa: BLE001 - however it ends: that it ended without answers is what counts
            answered.append(0)
        else:
            answered.append(len(found.answers))
    return {"answered": answered}


if __name__ == "__main__":
    report(asyncio.run(run(configuration())))
