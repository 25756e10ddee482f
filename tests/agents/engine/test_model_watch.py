"""The worker's warnings about a model that gives no answers."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from agents import credit_risk
from agents.engine.examples import prepared
from agents.engine.inference import Inference
from agents.engine.log_repeats import Repeats
from agents.engine.model_watch import ModelWatch, Watched
from agents.settings import Settings
from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Answer, Ask, Question
from models.sandbox.server import MODEL, Sandbox, SandboxConfig
from tests.support.scoring import soon
from tests.support.simple_agent import OrderAnswer, OrderFeatures, Scripted, simple_agent

KEY = "sk-very-secret-key"
AGENT = credit_risk.AGENT


def asking(base_url: str, key: str | None) -> ChatScorer[Any]:
    assert isinstance(AGENT.scorer, Ask)
    return ChatScorer(AGENT.scorer, Line(base_url, key, MODEL), agent=AGENT.name)


async def test_refused_calls_are_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """The first call that is refused is a warning with the setting; those after it are counted, and told after a minute."""
    now = 0.0
    watch = ModelWatch(Repeats(("agents",), seconds=60.0, clock=lambda: now))
    features = prepared(AGENT, AGENT.examples[0])[1].features
    assert features is not None
    async with Sandbox(SandboxConfig(api_key="another")) as sandbox:
        inner = asking(sandbox.base_url, KEY)
        scorer = Watched(inner, AGENT.name, AGENT.on_no_answer, watch)
        told = []
        for now in (0.0, 1.0, 2.0, 61.0):  # noqa: B007 - read by the clock
            [answer] = await scorer.score([Question("id", features)], asyncio.get_running_loop().time() + 30)
            assert answer.status == "rejected"
            told.append(len(caplog.records))
        await scorer.close()
    assert told == [1, 1, 1, 2]
    assert "set HEADRACE_MODEL_API_KEY" in caplog.messages[0]
    assert "(and 2 like it)" in caplog.messages[1]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert KEY not in caplog.text


async def test_answers_that_come_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """A model that answers, and the probe of it, log nothing."""
    watch = ModelWatch()
    features = prepared(AGENT, AGENT.examples[0])[1].features
    assert features is not None
    async with Sandbox() as sandbox:
        inner = asking(sandbox.base_url, None)
        scorer = Watched(inner, AGENT.name, AGENT.on_no_answer, watch)
        await watch.probe(sandbox.base_url, None, MODEL)
        [answer] = await scorer.score([Question("id", features)], asyncio.get_running_loop().time() + 30)
        await scorer.close()
    assert answer.status == "answered"
    assert not caplog.records


async def test_the_probe_warns_of_what_it_finds(caplog: pytest.LogCaptureFixture) -> None:
    """A refused key and a name that is not listed are warnings at once, without any record."""
    async with Sandbox(SandboxConfig(api_key="another")) as refusing, Sandbox() as other:
        await ModelWatch().probe(refusing.base_url, KEY, MODEL)
        await ModelWatch().probe(other.base_url, KEY, "gpt-no-such")
    assert "HEADRACE_MODEL_API_KEY" in caplog.messages[0]
    assert "HEADRACE_MODEL_NAME" in caplog.messages[1]
    assert KEY not in caplog.text


async def test_two_endpoints_of_one_model_are_two_kinds_of_news(caplog: pytest.LogCaptureFixture) -> None:
    """That the second gives no answers either is told beside the first: the agent decides without. Each names its setting."""
    agent = simple_agent(Ask(OrderAnswer, "Judge."), name="loans")
    here, there = "http://127.0.0.1:9/v1", "http://127.0.0.1:11/v1"
    settings = Settings(model_base_url=here, model_name="one", model_fallbacks=[{"base_url": there, "name": "one"}])
    inference = Inference(settings, [agent], ModelWatch(Repeats(("agents",), seconds=60.0, clock=lambda: 0.0)))
    scorer = inference.scorer(agent, manifest="m", on_call=lambda call: None)
    [answer] = await scorer.score([Question("d", OrderFeatures(who="a", amount=1))], soon(2))
    await scorer.close()
    assert answer.status == "unavailable"
    first, second = caplog.messages
    assert f"the model one at {here} gives no answers (asking one at {there})" in first
    assert f"the model one at {there} gives no answers ({agent.on_no_answer})" in second
    assert ("HEADRACE_MODEL_BASE_URL" in first, "HEADRACE_MODEL_FALLBACKS" in second) == (True, True)


async def test_that_a_model_is_back_is_told_and_an_outage_is_one_kind_of_news(caplog: pytest.LogCaptureFixture) -> None:
    """However its reason varies, an outage is told once in a while; a budget that is spent names its own setting."""
    said = [
        Answer[Any]("unavailable", why="it is asked again in 3 s"), Answer[Any]("unavailable", why="it is asked again in 4 s"),
        Answer[Any]("answered", why=""), Answer[Any]("budget", why="spent"),
    ]  # fmt: skip
    scripted = Scripted(lambda features: said.pop(0))
    watched = Watched(scripted, "loans", "review", ModelWatch(Repeats(("agents",), seconds=60.0, clock=lambda: 0.0)))
    for _ in range(4):
        await watched.score([Question("d", OrderFeatures(who="a", amount=1))], 0.0)
    assert [re.sub(r".*model scripted ", "", message) for message in caplog.messages] == [
        "gives no answers (review): it is asked again in 3 s; check HEADRACE_MODEL_BASE_URL", "answers again",
        "gives no answers (review): spent; raise `budget` in HEADRACE_AGENTS",
    ]  # fmt: skip
