"""The peers of `goodput` on the openai SDK that Headrace runs on: its own retries, tenacity's, and a limiter told the limit."""

from __future__ import annotations

import json
from typing import Any

import openai
from aiolimiter import AsyncLimiter
from tenacity import retry, stop_after_attempt, wait_random_exponential

from tests.bench.inference.saturate import MODEL, MOST_OUTPUT, Ask, Tally, main, saturate
from tests.bench.inference.work import FORMAT, Answers, Loan, messages


def asking(sdk: openai.AsyncOpenAI) -> Ask:
    """`chat.completions.create` and a pydantic model."""

    async def ask(record: Loan, number: int) -> bool:
        reply: Any = await sdk.chat.completions.create(
            model=MODEL, messages=messages([record], number), response_format=FORMAT,  # type: ignore[call-overload]  # dicts
            max_completion_tokens=MOST_OUTPUT,
        )  # fmt: skip
        return len(Answers.model_validate_json(reply.choices[0].message.content).answers) == 1

    return ask


def defaults(base_url: str, given: dict[str, Any]) -> Ask:
    """As it comes: two retries with its own backoff, Retry-After heeded."""
    return asking(openai.AsyncOpenAI(base_url=base_url, api_key="none"))


def tenacious(base_url: str, given: dict[str, Any]) -> Ask:
    """Six attempts with random exponential waits of a second to a minute, as tutorials have it."""
    ask = asking(openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0))
    wrapped: Ask = retry(wait=wait_random_exponential(min=1, max=60), stop=stop_after_attempt(6))(ask)
    return wrapped


def paced(base_url: str, given: dict[str, Any]) -> Ask:
    """A leaky bucket for a second's part of the limit that it is told, of tokens on what a request may use; no retries."""
    ask = asking(openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0))
    limits = given["limits"]
    requests = AsyncLimiter(limits["rpm"] / 60, 1.0) if "rpm" in limits else None
    tokens = AsyncLimiter(limits["tpm"] / 60, 1.0) if "tpm" in limits else None

    async def wait(record: Loan, number: int) -> bool:
        if requests is not None:
            await requests.acquire()
        if tokens is not None:
            await tokens.acquire(len(json.dumps([messages([record], number), FORMAT])) // 4 + MOST_OUTPUT)
        return await ask(record, number)

    return wait


KINDS = {"defaults": defaults, "tenacity": tenacious, "paced": paced}


async def run(base_url: str, given: dict[str, Any]) -> Tally:
    """`kind` says who asks."""
    return await saturate(KINDS[given["kind"]](base_url, given), given)


if __name__ == "__main__":
    main(run)
