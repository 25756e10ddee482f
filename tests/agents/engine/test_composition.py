"""How the parts between an engine and its models are joined: what each of them is told of tenant, budget, breaker and topic.

The parts have tests of their own. Here an `Inference` is given settings and its scorer asks a sandbox over HTTP, so that a part
which is left out, or told nothing, is seen. Green does not show an engine around it, nor a broker behind the topic of calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.engine.inference import Inference
from agents.engine.model_watch import ModelWatch
from agents.engine.spec import Batch
from agents.settings import ModelPrice, Settings
from models.chat.hedge import LEAST_EVIDENCE
from models.contract import Ask, Paced, Question, Scorer
from models.sandbox.rules import RULES
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import soon, statuses
from tests.support.simple_agent import OrderAnswer, OrderFeatures, simple_agent
from tests.support.virtual_time import run

AGENT = simple_agent(Ask(OrderAnswer, "Judge the orders."), name="asking", batch=Batch(4, within="5ms"))
PRICE = {"input": "1", "output": "1"}
CLEAR, UNCLEAR = 5, 50
"""Amounts outside and inside the band of the cheap model."""


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox takes the amount for the risk."""

    def by_amount(features: Mapping[str, Any]) -> dict[str, Any]:
        return {"risk": features["amount"], "verdict": "accept"}

    monkeypatch.setitem(RULES, "OrderAnswer", by_amount)


def orders(count: int = 1, amount: int = CLEAR) -> list[Question]:
    """So many orders of the same amount."""
    return [Question(f"d{number}", OrderFeatures(who=f"c{number}", amount=amount)) for number in range(count)]


def scorer_of(inference: Inference, calls: list[Call] | None = None, **changes: Any) -> Scorer:
    """What the agent asks; its calls go to `calls`."""
    told: dict[str, Any] = {"manifest": "m", "on_call": [].append if calls is None else calls.append} | changes
    return inference.scorer(AGENT, **told)


async def one_by_one(scorer: Scorer, count: int) -> list[str]:
    """So many requests about an order each, one after the other; how each ended."""
    return [status for _ in range(count) for status in statuses(await scorer.score(orders(), soon(30)))]


def spent(inference: Inference, part: float) -> None:
    """Partition 0 is all there is, and so much of today's budget is spent on it (tomorrow's too, if it comes meanwhile)."""
    budget, now = inference.budgets[AGENT.name], datetime.now(UTC)
    days = (now, now + timedelta(days=1))
    budget.take(0, 1, {day.date().isoformat(): int(part * budget.limit) for day in days})


def thrifty(base_url: str, **given: Any) -> Settings:
    """A cheap model before the strong one, both in one place, and a budget of which half may be spent freely."""
    cascade = {"field": "risk", "cheap": [40, 60], "sample": 0}
    return Settings(
        model_base_url=base_url, model_name="strong", model_price=PRICE,
        model_cheap={"base_url": base_url, "name": "cheap", "price": PRICE},
        agents={AGENT.name: {"budget": "10", "budget_soft": 0.5, "cascade": cascade} | given},
    )  # fmt: skip


# ---- the topic of calls --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("budget", ["10", None], ids=["budget", "no budget"])
def test_an_answer_is_held_back_until_its_call_is_on_the_topic_where_a_budget_goes_by_it(budget: str | None) -> None:
    """A successor reads there what was spent: an answer that went out before its call could be spent without a trace."""

    async def held() -> bool:
        recorded, calls = asyncio.Event(), list[Call]()
        async with Sandbox() as server:
            settings = Settings(model_base_url=server.base_url, model_price=PRICE, agents={AGENT.name: {"budget": budget}})
            inference = Inference(settings, [AGENT], ModelWatch())
            if budget is not None:
                spent(inference, 0)
            scorer = scorer_of(inference, calls, recorded=recorded.wait)
            asking = asyncio.ensure_future(scorer.score(orders(), soon(20)))
            await asyncio.wait((asking,), timeout=10)
            assert len(calls) == 1
            waited = not asking.done()
            recorded.set()
            assert statuses(await asyncio.wait_for(asking, 5)) == ["answered"]
            await scorer.close()
        return waited

    assert run(held()) == (budget is not None)


# ---- the cache -----------------------------------------------------------------------------------------------------------
async def test_no_tenant_is_given_what_another_was_answered(tmp_path: Path) -> None:
    """In one file, each tenant and each manifest has answers of its own; the same ones again are found there."""
    found = []
    async with Sandbox() as server:
        for tenant, manifest in (("bank", "m"), ("insurer", "m"), ("bank", "n"), ("bank", "m"), ("insurer", "m")):
            settings = Settings(
                model_base_url=server.base_url, data_dir=str(tmp_path), tenant=tenant, agents={AGENT.name: {"cache": "1h"}}
            )
            scorer = scorer_of(Inference(settings, [AGENT], ModelWatch()), manifest=manifest)
            (answer,) = await scorer.score(orders(), soon(30))
            await scorer.close()
            assert answer.status == "answered"
            found.append(answer.cache)
        assert server.meter.requests == 3
    assert found == [None, None, None, "hit", "hit"]


async def test_no_place_is_given_what_another_was_asked(tmp_path: Path) -> None:
    """Two servers may call different models by one name: what was kept from one is not the other's."""
    async with Sandbox() as here, Sandbox() as there:
        for server, kept in ((here, None), (there, None), (here, "hit")):
            settings = Settings(model_base_url=server.base_url, data_dir=str(tmp_path), agents={AGENT.name: {"cache": "1h"}})
            scorer = scorer_of(Inference(settings, [AGENT], ModelWatch()))
            (answer,) = await scorer.score(orders(), soon(30))
            await scorer.close()
            assert (answer.status, answer.cache) == ("answered", kept)
        assert (here.meter.requests, there.meter.requests) == (1, 1)


# ---- hedges --------------------------------------------------------------------------------------------------------------
HEDGED = {"hedge": 0.5, "canary": 0}
HANGS = ("",) * LEAST_EVIDENCE + ("hang",)
"""After just as many requests as a hedge wants to have timed, one that is never answered."""


def test_a_slow_request_is_asked_twice_and_answered_once() -> None:
    """Where `hedge` is set: the other request is cut off, and both are told as Calls. Elsewhere it is lost at the deadline."""

    async def asked(hedge: float) -> tuple[str, int, list[tuple[str, bool]]]:
        calls = list[Call]()
        async with Sandbox(SandboxConfig(latency="100ms", schedule=HANGS)) as server:
            settings = Settings(model_base_url=server.base_url, agents={AGENT.name: {"hedge": hedge, "canary": 0}})
            scorer = scorer_of(Inference(settings, [AGENT], ModelWatch()), calls)
            assert await one_by_one(scorer, LEAST_EVIDENCE) == ["answered"] * LEAST_EVIDENCE
            before = server.meter.requests
            del calls[:]
            (status,) = await one_by_one(scorer, 1)
            await scorer.close()
            came = server.meter.requests - before
        return status, came, sorted((call.status, call.hedge_of is not None) for call in calls)

    assert run(asked(0.5)) == ("answered", 2, [("cancelled", False), ("ok", True)])
    assert run(asked(0)) == ("timeout", 1, [("timeout", False)])


@pytest.mark.parametrize("well", [True, False], ids=["well", "coming back"])
def test_nothing_is_hedged_while_the_endpoint_is_only_coming_back(well: bool) -> None:
    """Behind a breaker that is not closed a second request would take the place of a first one."""

    async def asked() -> tuple[str, int]:
        failing = () if well else ("401",)
        async with Sandbox(SandboxConfig(latency="100ms", schedule=(*failing, *HANGS))) as server:
            settings = Settings(model_base_url=server.base_url, agents={AGENT.name: HEDGED})
            inference = Inference(settings, [AGENT], ModelWatch())
            scorer = scorer_of(inference)
            assert await one_by_one(scorer, len(failing)) == ["rejected"] * len(failing)
            await asyncio.sleep(5)
            assert await one_by_one(scorer, LEAST_EVIDENCE) == ["answered"] * LEAST_EVIDENCE
            (opened,) = inference.opened
            assert opened.breaker.closed() == well
            assert opened.breaker.places() > 2, "there would be a place for a hedge"
            before = server.meter.requests
            (status,) = await one_by_one(scorer, 1)
            await scorer.close()
            return status, server.meter.requests - before

    assert run(asked()) == (("answered", 2) if well else ("timeout", 1))


@pytest.mark.parametrize(("part", "hedged"), [(0.4, True), (0.6, False)], ids=["before", "past"])
def test_nothing_is_hedged_past_the_soft_limit(part: float, hedged: bool) -> None:
    """What is left of the budget is for what was not asked at all."""

    async def asked() -> tuple[str, int]:
        calls = list[Call]()
        async with Sandbox(SandboxConfig(latency="100ms", schedule=HANGS)) as server:
            inference = Inference(thrifty(server.base_url, **HEDGED), [AGENT], ModelWatch())
            spent(inference, part)
            scorer = scorer_of(inference, calls)
            assert await one_by_one(scorer, LEAST_EVIDENCE) == ["answered"] * LEAST_EVIDENCE
            del calls[:]
            (status,) = await one_by_one(scorer, 1)
            await scorer.close()
            assert {call.model_requested for call in calls} == {"cheap"}
            return status, len(calls)

    assert run(asked()) == (("answered", 2) if hedged else ("timeout", 1))


# ---- comparisons ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("part", "compared"), [(0.4, 4), (0.6, 0)], ids=["before", "past"])
def test_nothing_is_compared_past_the_soft_limit(part: float, compared: int) -> None:
    """Every record of the batch is asked alone too, but not from what the budget has left for decisions."""

    async def asked() -> Counter[str]:
        calls = list[Call]()
        async with Sandbox() as server:
            inference = Inference(thrifty(server.base_url, canary=1.0), [AGENT], ModelWatch())
            spent(inference, part)
            scorer = scorer_of(inference, calls)
            assert statuses(await scorer.score(orders(4), soon(30))) == ["answered"] * 4
            await asyncio.sleep(10)
            await scorer.close()
            return Counter(call.purpose for call in calls)

    assert run(asked()) == Counter({"decision": 1, "canary": compared})


# ---- the cascade ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("out", [True, False], ids=["out", "full"])
def test_records_wait_for_a_strong_model_that_is_full_and_not_for_one_that_is_out(out: bool) -> None:
    """While it is only tried whether it is back, the agent goes on with what the cheap model is certain of."""

    async def goes_on() -> bool:
        schedule = ("401", "hang") if out else ("hang",)
        async with Sandbox() as cheap, Sandbox(SandboxConfig(schedule=schedule)) as strong:
            settings = Settings(
                model_base_url=strong.base_url, model_name="strong", model_concurrency=1,
                model_cheap={"base_url": cheap.base_url, "name": "cheap"},
                agents={AGENT.name: {"cascade": {"field": "risk", "cheap": [40, 60], "sample": 0}}},
            )  # fmt: skip
            scorer = scorer_of(Inference(settings, [AGENT], ModelWatch()))
            assert isinstance(scorer, Paced)
            if out:
                assert statuses(await scorer.score(orders(amount=UNCLEAR), soon(30))) == ["rejected"]
                await asyncio.sleep(5)
            asked = [scorer.score(orders(amount=UNCLEAR), soon(30)) for _ in range(1 if out else 4)]
            held = asyncio.gather(*asked)
            await asyncio.sleep(5)
            assert strong.meter.requests == len(schedule)
            assert not held.done()
            there = scorer.room()
            assert statuses(await scorer.score(orders(), soon(5))) == ["answered"]
            assert not held.done()
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            await scorer.close()
            return there

    assert run(goes_on()) == out


@pytest.mark.parametrize("soft", [0.5, None], ids=["soft limit", "none"])
async def test_where_the_strong_model_is_too_dear_the_cheap_answer_stands_if_there_is_a_soft_limit(soft: float | None) -> None:
    """Whoever set one wants the tier to drop; without it nobody said that an uncertain answer may stand."""
    async with Sandbox() as server:
        settings = thrifty(server.base_url, budget_soft=soft)
        settings = settings.model_copy(update={"model_price": ModelPrice(input=Decimal(900_000), output=Decimal(900_000))})
        inference = Inference(settings, [AGENT], ModelWatch())
        spent(inference, 0.0)
        scorer = scorer_of(inference)
        (answer,) = await scorer.score(orders(amount=UNCLEAR), soon(30))
        await scorer.close()
        assert server.meter.requests == 1
    assert (answer.status, answer.model_requested) == (("answered", "cheap") if soft else ("budget", "strong"))


def test_a_cheap_model_that_is_coming_back_is_not_waited_for() -> None:
    """The strong one is asked behind it: while the cheap one is tried, and before, there is room."""

    async def rooms() -> list[bool]:
        async with Sandbox(SandboxConfig(schedule=("401", "hang"))) as cheap, Sandbox() as strong:
            settings = Settings(
                model_base_url=strong.base_url, model_name="strong", model_cheap={"base_url": cheap.base_url, "name": "cheap"},
                agents={AGENT.name: {"cascade": {"field": "risk", "cheap": [40, 60], "sample": 0}}},
            )  # fmt: skip
            scorer = scorer_of(Inference(settings, [AGENT], ModelWatch()))
            assert isinstance(scorer, Paced)
            assert statuses(await scorer.score(orders(), soon(30))) == ["answered"], "by the strong one"
            await asyncio.sleep(5)
            probe = asyncio.ensure_future(scorer.score(orders(), soon(30)))
            await asyncio.sleep(1)
            found = [scorer.room(), statuses(await scorer.score(orders(), soon(5))) == ["answered"]]
            assert not probe.done()
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
            await scorer.close()
            return found

    assert run(rooms()) == [True, True]
