"""An endpoint comes back: what was not asked yet waits for its slow start and is answered; nobody is refused for being early.

Engines as workers have them, over real HTTP on a clock that does not wait. Records come evenly before, during and after.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agents.engine.inference import Inference
from agents.engine.model_watch import ModelWatch
from agents.engine.pipeline import Pipeline
from agents.engine.runtime import Engine
from agents.engine.spec import Batch, Context
from agents.engine.verdicts import Site
from agents.settings import Settings
from models.contract import Answer, Ask, Question, Scorer
from models.wrapper import Wrapper
from schemas.marks import Untrusted
from tests.support.partitions import ListedSlot, LonePartition
from tests.support.simple_agent import OrderAnswer, OrderFeatures, order, simple_agent
from tests.support.virtual_time import run
from topics.handover import Finished, Slot

SECONDS, RATE = 12, 40
OUT, BACK = 2.0, 5.0


@dataclass
class Endpoint:
    """Fails from `out` to `back` seconds of its life as `how` says ("503", "hang"), else answers in `latency` seconds.

    `cut`: it answers about one record of a batch and ends the reply there, so that batches are halved.
    """

    out: float = OUT
    back: float = BACK
    how: str = "503"
    latency: float = 0.3
    cut: bool = False
    begun: float = 0.0
    asked: int = 0
    first_good: float | None = None

    async def _away(self) -> bool:
        """Whether a request that came now is not answered."""
        self.asked += 1
        away = self.out <= asyncio.get_running_loop().time() - self.begun < self.back
        await asyncio.sleep(60 if away and self.how == "hang" else 0 if away else self.latency)
        return away

    async def moderate(self, request: web.Request) -> web.Response:
        """One request for moderation: nothing is flagged."""
        texts = orjson.loads(await request.read())["input"]
        if await self._away():
            return web.json_response({"error": {"message": "out"}}, status=503)
        self._good()
        return web.json_response({"results": [{"flagged": False} for _ in texts]})

    def _good(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self.begun >= self.back and self.first_good is None:
            self.first_good = now

    async def answer(self, request: web.Request) -> web.Response:
        """One chat request."""
        body = orjson.loads(await request.read())
        if await self._away():
            return web.json_response({"error": {"message": "out"}}, status=503)
        records = orjson.loads(body["messages"][1]["content"])["records"]
        cut = self.cut and len(records) > 1
        answers = [{"id": record["id"], "risk": 1, "verdict": "accept"} for record in (records[:1] if cut else records)]
        self._good()
        message = {"role": "assistant", "content": orjson.dumps({"answers": answers}).decode()}
        return web.json_response({
            "id": "c", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "length" if cut else "stop", "message": message}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55},
        })  # fmt: skip


@asynccontextmanager
async def reach(endpoint: Endpoint) -> AsyncIterator[str]:
    """Its address."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    app.router.add_post("/v1/moderations", endpoint.moderate)
    async with TestServer(app) as server:
        endpoint.begun = asyncio.get_running_loop().time()
        yield str(server.make_url("/v1"))


@dataclass
class Noted(Wrapper):
    """Writes down each answer, and when it was asked for."""

    inner: Scorer
    seen: list[tuple[float, Answer[Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.inner)

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        asked_at = asyncio.get_running_loop().time()
        answers = await self._inner.score(questions, deadline)
        self.seen += [(asked_at, answer) for answer in answers]
        return answers


class Source(LonePartition):
    """Counts what is finished."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._wanted = wanted
        self.done = asyncio.Event()

    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        """One less."""
        self._wanted -= 1
        if not self._wanted:
            self.done.set()


class Wish(OrderFeatures):
    """With a text that is moderated."""

    wish: Annotated[str, Untrusted(max=50)] = ""


def wished(context: Context[Any]) -> Wish:
    """What is seen of an order."""
    return Wish(who="a", amount=1, wish=f"please, {context.subject}")


async def decide(
    urls: Sequence[str], names: Sequence[str], endpoints: Sequence[Endpoint], deadline: str = "8s", moderation: str | None = None
) -> list[tuple[float, Answer[Any]]]:
    """Records for each agent of one process, all until they are decided; the answers as they were asked for."""
    given: dict[str, Any] = {"batch": Batch(4, within="5ms"), "deadline": deadline, "in_flight": 64}
    given |= {"features_model": Wish, "features": wished} if moderation else {}
    agents = [simple_agent(Ask(OrderAnswer, "Judge."), name=name, **given) for name in names]
    more: dict[str, Any] = {"agents": {name: {"moderate": True} for name in names}} if moderation else {}
    more |= {"moderation": {"base_url": moderation, "name": "omni"}} if moderation else {}
    further = [{"base_url": url, "name": f"m{place}", "rpm": 60_000} for place, url in enumerate(urls[1:], 1)]
    settings = Settings(model_base_url=urls[0], model_name="m0", model_rpm=60_000, model_fallbacks=further, **more)
    inference = Inference(settings, agents, ModelWatch())
    noted = [Noted(inference.scorer(one, manifest="m", on_call=lambda call: None)) for one in agents]
    for one in agents:
        tell = inference.owned(one)
        assert tell is not None
        tell(1.0)
    (chain,) = inference.way(names[0]).chains
    for candidate, endpoint in zip(chain.candidates, endpoints, strict=True):
        until = asyncio.get_running_loop().time() + 8
        first = asyncio.ensure_future(candidate.scorer.score([Question("d", OrderFeatures(who="a", amount=1))], until))
        while not endpoint.asked:  # noqa: ASYNC110  # the SDK begins in a thread: no time may pass
            await asyncio.sleep(0)
        assert [answer.status for answer in await first] == ["answered"]
    async with asyncio.timeout(120):
        await asyncio.gather(*(_through(one, scorer) for one, scorer in zip(agents, noted, strict=True)))
    return sorted((seen for scorer in noted for seen in scorer.seen), key=lambda seen: seen[0])


async def _through(agent: Any, scorer: Scorer) -> None:
    failed: list[BaseException] = []
    pipeline = Pipeline(agent, Site(manifest="m"), dead_letters="dlq", judgements=None, joins=None, wall_ms=lambda: 1)
    engine = Engine(agent, pipeline, scorer, on_fatal=failed.append)
    source = Source(SECONDS * RATE)
    await engine.take(source)
    for number in range(SECONDS * RATE):
        engine.offer(ListedSlot([order(f"k{number}", offset=number)], source))
        await asyncio.sleep(1 / RATE)
    await source.done.wait()
    await engine.close()
    assert not failed


def refused(seen: list[tuple[float, Answer[Any]]], since: float = 0.0) -> Counter[str]:
    """Why records that were asked about from then on had no answer."""
    return Counter(answer.why for at, answer in seen if answer.status != "answered" and at >= since)


async def _outage(names: Sequence[str], endpoint: Endpoint, deadline: str) -> tuple[Counter[str], Counter[str]]:
    """Why records had no answer, ever and after the endpoint's first good one."""
    async with reach(endpoint) as url:
        seen = await decide([url], names, [endpoint], deadline)
    assert endpoint.first_good is not None
    assert len(seen) == len(names) * SECONDS * RATE
    return refused(seen), refused(seen, endpoint.first_good)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "halved"])
@pytest.mark.parametrize("names", ["a", "abc"], ids=["one agent", "three agents"])
def test_after_the_first_good_answer_nobody_is_sent_away(names: str, cut: bool) -> None:
    """In the outage records are answered at once, as the agent says; once the endpoint answers, all are by the model."""
    endpoint = Endpoint(cut=cut)
    during, after = run(_outage(names, endpoint, "8s"))
    assert during.total() > 50, "an outage is not waited for"
    assert not after
    assert endpoint.asked > 100


def test_an_endpoint_that_hung_is_waited_for_once_it_is_tried() -> None:
    """What takes the probe and does not answer holds back what is not asked yet; nothing is forgotten."""
    during, after = run(_outage("ab", Endpoint(how="hang", back=7.0), "2s"))
    assert during
    assert not after


async def _moderated(moderation: Endpoint) -> tuple[Counter[str], Counter[str]]:
    """As `_outage`, of the endpoint that moderates; the model is well."""
    model = Endpoint(out=1e9, latency=0.1)
    async with reach(model) as url, reach(moderation) as there:
        seen = await decide([url], "ab", [model], moderation=there)
    assert moderation.first_good is not None
    assert len(seen) == 2 * SECONDS * RATE
    return refused(seen), refused(seen, moderation.first_good)


def test_moderation_that_comes_back_is_waited_for_as_a_model_is() -> None:
    """In its outage what has a text is for a person at once; from its first good answer on nothing is, for being early."""
    during, after = run(_moderated(Endpoint(latency=0.1)))
    assert during.total() > 50
    assert {why.partition(":")[0] for why in during} == {"moderation"}
    assert not after


async def _two(first: Endpoint, second: Endpoint) -> list[tuple[float, Answer[Any]]]:
    async with reach(first) as one, reach(second) as two:
        return await decide([one, two], "ab", [first, second])


def test_while_the_preferred_model_comes_back_the_next_one_answers() -> None:
    """Nobody waits for it and nobody is left without an answer, whether it fails at once or hangs."""
    for how in ("503", "hang"):
        first, second = Endpoint(how=how), Endpoint(out=1e9)
        seen = run(_two(first, second))
        assert not refused(seen)
        by = Counter(answer.model_requested for _, answer in seen)
        assert by["m1"] > 100
        assert {answer.model_requested for _, answer in seen[-50:]} == {"m0"}


@pytest.mark.parametrize("backs", [(5.0, 8.0), (8.0, 5.0)], ids=["preferred first", "fallback first"])
def test_where_all_were_out_the_first_that_is_back_is_waited_for(backs: tuple[float, float]) -> None:
    """Two models fail together and come back apart: from the first good answer of either on, all have an answer."""
    first, second = Endpoint(back=backs[0]), Endpoint(back=backs[1], out=1.0)
    seen = run(_two(first, second))
    assert refused(seen)
    good = [one.first_good for one in (first, second) if one.first_good is not None]
    assert not refused(seen, min(good))
