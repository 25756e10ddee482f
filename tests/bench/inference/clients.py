"""Ways to ask a model with the openai SDK, and Headrace's own: `kind` says which, `size` how many records a call has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import httpx2
import openai
import orjson

from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question, ignore
from schemas.audit import Call
from tests.bench.contenders.meter import configuration, report, tune_collector
from tests.bench.inference.loop import Turn, run
from tests.bench.inference.work import FORMAT, PROMPT, Answers, Judged, Loan, messages

MODEL = "bench"


def client(base_url: str) -> openai.AsyncOpenAI:
    """The SDK with its aiohttp transport, which is the fastest it has, and without retries."""
    return openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=openai.DefaultAioHttpClient())


def post(base_url: str) -> Turn:
    """The bare low-level post: bytes in, bytes out; the reply is counted and not checked."""
    sdk = client(base_url)
    headers = {"Content-Type": "application/json"}

    async def turn(records: list[Loan], first: int) -> int:
        body = orjson.dumps({"model": MODEL, "messages": messages(records, first), "response_format": FORMAT})
        reply = await sdk.post("/chat/completions", cast_to=httpx2.Response, content=body, options={"headers": headers})
        return len(records) if reply.status_code == 200 else 0

    return turn


def create(base_url: str) -> Turn:
    """`chat.completions.create` and a pydantic model, as most write it."""
    sdk = client(base_url)

    async def turn(records: list[Loan], first: int) -> int:
        reply: Any = await sdk.chat.completions.create(
            model=MODEL, messages=messages(records, first), response_format=FORMAT  # type: ignore[call-overload]  # dicts
        )
        return len(Answers.model_validate_json(reply.choices[0].message.content).answers)

    return turn


def parse(base_url: str) -> Turn:
    """`chat.completions.parse`, the SDK's own structured output."""
    sdk = client(base_url)

    async def turn(records: list[Loan], first: int) -> int:
        reply: Any = await sdk.chat.completions.parse(
            model=MODEL, messages=messages(records, first), response_format=Answers  # type: ignore[arg-type]  # dicts
        )
        return len(reply.choices[0].message.parsed.answers)

    return turn


def headrace(base_url: str, *, audit: bool) -> Turn:
    """The transport: one prompt, gates, alignment, validation. With `audit` each Call is written and hashed as for its topic."""
    digest = sha256()

    def written(call: Call) -> None:
        digest.update(call.model_dump_json(by_alias=True).encode())

    scorer = ChatScorer(Ask(Judged, PROMPT), Line(base_url, None, MODEL), agent="bench", on_call=written if audit else ignore)

    async def turn(records: list[Loan], first: int) -> int:
        asked = [Question(f"r{first + place}", record) for place, record in enumerate(records)]
        answers: Sequence[Any] = await scorer.score(asked, asyncio.get_running_loop().time() + 60)
        return sum(answer.status == "answered" for answer in answers)

    return turn


KINDS: dict[str, Callable[[str], Turn]] = {
    "post": post,
    "create": create,
    "parse": parse,
    "headrace": lambda base_url: headrace(base_url, audit=False),
    "headrace-audit": lambda base_url: headrace(base_url, audit=True),
}


def main() -> None:
    """The result is one JSON line."""
    given = configuration()
    tune_collector()
    report(asyncio.run(run(KINDS[given["kind"]](given["base_url"]), given)))


if __name__ == "__main__":
    main()
