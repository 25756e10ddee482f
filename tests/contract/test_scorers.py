"""One suite over every Scorer: one answer per question in order, no exception, the deadline met, closing twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydantic import BaseModel

from models.cache.cached import Cached
from models.cache.store import Scope, SqliteStore
from models.chat.hedge import Hedge
from models.chat.hedging import Hedging
from models.contract import Question, Scorer, Weighing
from models.guardrails.apart import Apart
from models.quality.canary import Canary
from models.quality.flips import FlipMeter
from models.routing.cascade import Cascade, Tier
from models.sandbox.server import Sandbox, SandboxConfig
from models.scorers.instant import InstantScorer, NoModel
from models.scorers.python_model import PythonScorer
from models.scorers.scorecard import Bins, Scorecard
from tests.support.scoring import ASK, Judged, Shown, chat, questions, soon


class Other(BaseModel):
    """Features that no scorer here expects."""

    data: bytes = b"\xff"


def judge(features: Shown) -> Judged:
    return Judged(risk=features.number % 100, grade="good")


def raising(many: list[Shown]) -> list[Judged]:
    raise ArithmeticError


def slow(many: list[Shown]) -> list[Judged]:
    time.sleep(1)
    return [judge(one) for one in many]


def card() -> Scorecard[Judged]:
    return Scorecard(
        "card", Judged, (Bins("number", ((1e9, 1),), above=2),), answer=lambda tally, shown: judge(shown), intercept=1
    )


async def from_sandbox(stack: AsyncExitStack) -> Scorer:
    return chat((await stack.enter_async_context(Sandbox())).base_url)


async def from_faulty_sandbox(stack: AsyncExitStack) -> Scorer:
    faults = {"500": 0.1, "missing": 0.2, "foreign": 0.1, "range": 0.1, "html": 0.1, "refusal": 0.1, "reset": 0.1, "hang": 0.05}
    return chat((await stack.enter_async_context(Sandbox(SandboxConfig(faults=faults)))).base_url)


async def hedged(stack: AsyncExitStack) -> Scorer:
    hedge = Hedge(share=1.0)
    for count in range(1, 10):
        hedge.sent(10_000)
        for _ in range(20):
            hedge.ended(ASK.reserved(count), 0.01)
    faults = SandboxConfig(faults={"hang": 0.2, "500": 0.1, "reset": 0.1}, latency="lognormal:10ms:1.0")
    return chat((await stack.enter_async_context(Sandbox(faults))).base_url, hedging=Hedging(hedge))


async def compared(stack: AsyncExitStack) -> Scorer:
    return Canary(await from_sandbox(stack), FlipMeter(4), share=0.5)


async def apart(stack: AsyncExitStack) -> Scorer:
    return Apart(await from_sandbox(stack))


async def from_nowhere(stack: AsyncExitStack) -> Scorer:
    async with Sandbox() as server:
        gone = server.base_url
    return chat(gone)


async def from_cache(stack: AsyncExitStack) -> Scorer:
    folder = Path(stack.enter_context(TemporaryDirectory()))
    store = SqliteStore(folder / "cache.sqlite", most_bytes=1_000_000, most_age=3600.0)
    return Cached(await from_sandbox(stack), store, Judged, Scope("default", "test", "m1"))


async def from_cascade(stack: AsyncExitStack) -> Scorer:
    cheap = Tier(await from_faulty_sandbox(stack), (20, 80))
    return Cascade(Judged, await from_sandbox(stack), field="risk", scorecard=Tier(card(), (1, 100)), cheap=cheap)


MAKERS: dict[str, Callable[[AsyncExitStack], Any]] = {
    "chat": from_sandbox,
    "chat-faulty": from_faulty_sandbox,
    "chat-nowhere": from_nowhere,
    "chat-hedged": hedged,
    "apart": apart,
    "cached": from_cache,
    "canary": compared,
    "cascade": from_cascade,
    "scorecard": lambda _stack: card(),
    "python": lambda _stack: PythonScorer(lambda many: [judge(one) for one in many], answer=Judged),
    "python-raising": lambda _stack: PythonScorer(raising, answer=Judged),
    "python-slow": lambda _stack: PythonScorer(slow, answer=Judged),
    "instant": lambda _stack: InstantScorer(judge),
    "no-model": lambda _stack: NoModel(),
}


@pytest.fixture(params=sorted(MAKERS))
async def scorer(request: pytest.FixtureRequest) -> AsyncIterator[Scorer]:
    """Each Scorer in turn."""
    async with AsyncExitStack() as stack:
        made = MAKERS[request.param](stack)
        found: Scorer = await made if asyncio.iscoroutine(made) else made
        yield found
        await found.close()
        await found.close()


async def test_one_answer_per_question_in_order(scorer: Scorer) -> None:
    """As many answers as questions; a value exactly where the status says so, and each what the record alone is answered."""
    asked = questions(9)
    answers = await scorer.score(asked, soon(1.5))
    assert len(answers) == len(asked)
    assert all((answer.value is not None) == (answer.status == "answered") for answer in answers)
    assert all(answer.why for answer in answers if answer.status != "answered")
    for question, answer in zip(asked, answers, strict=True):
        (alone,) = await scorer.score([question], soon(0.5))
        assert answer.status != "answered" or alone.status != "answered" or answer.value == alone.value


@pytest.mark.parametrize("scorer", ["chat", "chat-hedged", "apart", "cached", "canary", "cascade"], indirect=True)
async def test_what_asks_a_model_weighs_its_records(scorer: Scorer) -> None:
    """Whatever stands around a model: a longer record has more tokens, and one that can not be written has none."""
    assert isinstance(scorer, Weighing)
    short, long = scorer.weigh(Shown(number=1)), scorer.weigh(Shown(number=1, note="twenty letters or so"))
    assert 0 < short < long
    assert scorer.weigh(Other()) == 0


async def test_no_question_no_answer(scorer: Scorer) -> None:
    """An empty batch is answered with nothing."""
    assert list(await scorer.score([], soon(1))) == []


async def test_features_it_can_not_use_spoil_only_their_record(scorer: Scorer) -> None:
    """A record that can not be read by this Scorer is not answered; nothing is raised and its neighbours keep their answers."""
    asked = [*questions(2), Question("bad", Other())]
    first, second, bad = await scorer.score(asked, soon(6))
    healthy = [answer.status for answer in await scorer.score(questions(2), soon(6))]
    assert bad.status != "answered"
    if "faulty" not in scorer.name and healthy == ["answered", "answered"] and scorer.name != "m":
        assert [first.status, second.status] == healthy


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.2])
async def test_the_deadline_is_met(scorer: Scorer, seconds: float) -> None:
    """Answers are there by the deadline, whatever they are, also where it has passed already."""
    start = asyncio.get_running_loop().time()
    answers = await scorer.score(questions(3), start + seconds)
    assert asyncio.get_running_loop().time() - start < max(0.0, seconds) + 1.5
    assert len(answers) == 3


async def test_it_has_a_name_and_closes_twice(scorer: Scorer) -> None:
    """A name for metrics; closing is safe to repeat (the fixture does it a third time)."""
    assert scorer.name
    await scorer.close()
    await scorer.close()


async def test_without_a_model_configured_the_answer_says_what_to_set() -> None:
    """The one thing a person needs to know."""
    (answer,) = await NoModel().score(questions(1), soon(1))
    assert "HEADRACE_MODEL_BASE_URL" in answer.why
