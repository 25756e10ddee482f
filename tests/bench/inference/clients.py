"""Ways to ask a model with the openai SDK, and Headrace's own: `kind` says which, `size` how many records a call has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2
import openai
import orjson

from agents.engine.inference import Inference
from agents.engine.model_watch import ModelWatch
from agents.settings import AgentSettings, ModelPrice, Settings
from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question, Scorer
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from schemas.audit import Call
from tests.bench.contenders.meter import configuration, report, tune_collector
from tests.bench.inference.loop import Turn, run, slices
from tests.bench.inference.work import FORMAT, PROMPT, Answers, Judged, Loan, messages
from tests.bench.shared import lean_agent
from topics.chain import value_digest

MODEL = "bench"
RPM, TPM = 1_000_000, 1_000_000_000
"""What Headrace is told: more than these machines can ask, so that the gates count and nobody waits for them."""


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


def transport(base_url: str) -> Scorer:
    """The transport behind breaker and admission: prompt, alignment, validation."""
    admission = AdmissionGate(Limits(RPM, TPM, concurrency=64, queue=64))
    line = Line(base_url, None, MODEL, gates=(BreakerGate(base_url), admission), pacer=admission)
    return ChatScorer(Ask(Judged, PROMPT), line, agent=MODEL)


def whole(base_url: str) -> Scorer:
    """What a worker asks through: the same with a budget, the watch on the model, and each Call written and digested."""

    def written(call: Call) -> None:
        value_digest(call.model_dump_json(by_alias=True).encode())

    settings = Settings(
        model_base_url=base_url, model_name=MODEL, model_rpm=RPM, model_tpm=TPM,
        model_price=ModelPrice(input=Decimal(1), output=Decimal(1)), agents={MODEL: AgentSettings(budget=Decimal(1_000_000))},
    )  # fmt: skip
    lean: Any = lean_agent("bench.source", "bench.decisions")
    agent = replace(lean, scorer=Ask(Judged, PROMPT))
    inference = Inference(settings, [agent], ModelWatch())
    inference.budgets[agent.name].take(0, 1, {})
    return inference.scorer(agent, manifest="bench", on_call=written)


def headrace(scorer: Scorer) -> Turn:
    """Headrace, as far as `scorer` goes."""

    async def turn(records: list[Loan], first: int) -> int:
        asked = [Question(f"r{first + place}", record) for place, record in enumerate(records)]
        answers: Sequence[Any] = await scorer.score(asked, asyncio.get_running_loop().time() + 60)
        return sum(answer.status == "answered" for answer in answers)

    return turn


KINDS: dict[str, Callable[[str], Turn]] = {
    "post": post,
    "create": create,
    "parse": parse,
    "headrace": lambda base_url: headrace(transport(base_url)),
    "headrace-audit": lambda base_url: headrace(whole(base_url)),
}


def main() -> None:
    """The result is one JSON line, or one for each slice."""
    given = configuration()
    tune_collector()
    asyncio.run(_main(given))


async def _main(given: dict[str, Any]) -> None:
    turn = KINDS[given["kind"]](given["base_url"])
    if given.get("slices"):
        await slices(turn, given)
    else:
        report(await run(turn, given))


if __name__ == "__main__":
    main()
