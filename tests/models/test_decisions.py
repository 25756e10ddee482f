"""Records asked of /decisions over HTTP: what is sent, what is believed of a reply, and what becomes of each failure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import orjson
import pytest
from openai import AsyncOpenAI
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import BaseModel, Field, TypeAdapter

from models.chat.chat import ChatScorer
from models.chat.decisions import MOST_QUESTIONS, DecisionBuilder
from models.chat.dialect import Dialect
from models.chat.probe import probe_model
from models.chat.prompt import PromptBuilder
from models.contract import Answer, Ask, Question
from models.sandbox.decisions import decided, decision, read_wanted
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from schemas.errors import ConfigError, ModelProtocolError, ModelUnavailable
from schemas.marks import Image
from tests.support.scoring import ASK, Judged, line_to, questions, soon, statuses

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


class Pictured(BaseModel):
    """Features with an image."""

    number: int
    photo: Annotated[bytes, Image(type="image/png")]


def scorer_to(base_url: str, calls: list[Call] | None = None, ask: Ask[Any] = ASK) -> ChatScorer[Any]:
    """A scorer that asks /decisions."""
    collected: list[Call] = [] if calls is None else calls
    return ChatScorer(ask, line_to(base_url, api="decisions"), agent="test", on_call=collected.append)


async def asked(config: SandboxConfig, count: int = 4, ask: Ask[Any] = ASK) -> tuple[Sequence[Answer[Any]], list[Call], Sandbox]:
    """The answers to `count` records, the Calls, and the server that gave them."""
    calls: list[Call] = []
    async with Sandbox(config) as server:
        scorer = scorer_to(server.base_url, calls, ask)
        answers = await scorer.score(questions(count), soon(10))
        await scorer.close()
    return answers, calls, server


async def test_records_are_answered_with_the_probabilities_in_the_audit() -> None:
    """One request answers a batch; the raw answer has what the probabilities were, and the Call what it took."""
    answers, [call], server = await asked(SandboxConfig())
    assert statuses(answers) == ["answered"] * 4
    assert all(isinstance(answer.value, Judged) for answer in answers)
    assert [one["type"] for one in answers[0].raw["decisions"]] == ["score", "choice"]
    assert len(answers[0].raw["decisions"][0]["probabilities"]) == 11
    assert (call.status, call.parameters["api"]) == ("ok", "decisions")
    assert call.tokens.input == server.meter.input_tokens
    assert "temperature" not in call.parameters


async def test_the_openai_client_takes_the_same_reply() -> None:
    """The SDK's own call parses what the sandbox says of our questions."""
    body = json.loads(DecisionBuilder(ASK, "m").build(questions(2), Dialect()).body)
    async with Sandbox(SandboxConfig()) as server, AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
        reply = await client.decisions.create(**body)
    assert [answer.type for answer in reply.answers] == ["score", "choice"] * 2
    assert [answer.name for answer in reply.answers] == [question["name"] for question in body["questions"]]
    assert reply.usage.input_tokens > 0


def test_what_is_sent_is_what_the_client_s_types_allow() -> None:
    """Body, images included, against the SDK's parameters; what they do not name is not sent."""
    ask = Ask(Judged, "Look.", extra={"safety_identifier": "x"})
    features = Pictured(number=1, photo=PNG)
    body = json.loads(DecisionBuilder(ask, "m").build([*questions(2), Question("p", features)], Dialect()).body)
    TypeAdapter(DecisionCreateParams).validate_python(body)
    assert set(body) == {"model", "input", "questions", "safety_identifier"}
    parts = body["input"][1]["content"]
    assert [part["type"] for part in parts] == ["input_json"] * 3 + ["input_text", "input_image"]
    assert parts[2]["data"]["records"][0]["features"]["photo"] == parts[3]["text"]


def test_the_static_prefix_is_the_same_bytes_for_every_batch() -> None:
    """Everything before the first record is equal, and ids and nonces are new each time."""
    builder = DecisionBuilder(ASK, "m")
    one, other = (builder.build(questions(count), Dialect()) for count in (1, 5))
    prefix = one.body[: one.body.index(b'{"type":"input_json"')]
    assert other.body.startswith(prefix)
    assert b"Judge the risk of each record." in prefix
    assert not set(one.ids) & set(other.ids)


Change = Callable[[list[dict[str, Any]]], Any]


def read(change: Change, count: int = 3) -> tuple[Any, Any]:
    """What is made of a sandbox reply with its answers changed: the completion, and the ids that were asked."""
    builder = DecisionBuilder(ASK, "m")
    request = builder.build(questions(count), Dialect())
    answers = change(decided(read_wanted(request.body), lambda _: False))
    return builder.read(orjson.dumps(decision(answers, "s", 10, 10)), request), request.ids


def said(completion: Any) -> list[str]:
    """Ids in the text of a completion."""
    return [answer["id"] for answer in json.loads(completion.content)["answers"]]


@pytest.mark.parametrize(("change", "left"), [
    (lambda a: a, [0, 1, 2]),
    (lambda a: a[1:], [1, 2]),
    (lambda a: a[:-1], [0, 1]),
    (lambda a: [a[1], a[0], *a[2:]], [1, 2]),
    (lambda a: [a[2], *a[1:2], a[0], *a[3:]], [2]),
    (lambda a: [{**a[0], "name": None}, *a[1:]], [1, 2]),
    (lambda a: [{**a[0], "name": "abcdef_0"}, *a[1:]], [1, 2]),
    (lambda a: a[::-1], []),
    (lambda a: [], []),
])  # fmt: skip
def test_names_and_order_decide_which_record_an_answer_belongs_to(change: Change, left: list[int]) -> None:
    """A record of which an answer is not there, or not in its place, is missing; the others stand."""
    completion, ids = read(change)
    assert [id for id in said(completion) if id] == [ids[place] for place in left]


@pytest.mark.parametrize(("fault", "why"), [
    ("range", "no number from 0 to 1"), ("negative", "no number from 0 to 1"), ("vast", "no number from 0 to 1"),
    ("types", "no number from 0 to 1"), ("nan", "no number from 0 to 1"), ("choice", "none of the options"),
    ("sum", "do not add up to 1"),
])  # fmt: skip
async def test_what_can_not_be_costs_a_record_its_answer_with_a_reason(fault: str, why: str) -> None:
    """Asked alone, a record whose probabilities can not be is invalid, and says why."""
    answers, calls, _ = await asked(SandboxConfig(schedule=(fault,) * 9), 1)
    assert statuses(answers) == ["invalid"]
    assert why in answers[0].why
    assert answers[0].raw["decisions"]
    assert len(calls) == 2, "asked once more, and no oftener"


@pytest.mark.parametrize("fault", ["missing", "foreign", "duplicate", "swapped", "reordered", "renumbered", "no-list", "nan"])
async def test_a_reply_with_one_fault_is_mended_by_asking_again(fault: str) -> None:
    """What was lost in one reply is asked again, and nobody gets another's answer."""
    whole, _, _ = await asked(SandboxConfig())
    answers, _, _ = await asked(SandboxConfig(schedule=(fault,)))
    if fault == "swapped":  # of two questions of one record: of different types, so never believed
        assert statuses(answers) == ["answered"] * 4
    assert [answer.value for answer in answers] == [answer.value for answer in whole]


def test_an_answer_that_came_twice_costs_its_record_alone() -> None:
    """Which of the two is meant can not be known; the neighbours keep their answers."""
    completion, ids = read(lambda answers: [*answers, answers[0]])
    assert said(completion) == [ids[0], ids[0], ids[1], ids[2]]


def test_an_answer_of_another_type_than_its_question_is_not_believed() -> None:
    """Even where it would hold all that is needed."""
    completion, ids = read(lambda answers: [{**answers[0], "type": "predicate"}, *answers[1:]])
    assert [completion.beside[id].fault for id in ids] == ["invalid", None, None]
    assert "another type" in completion.beside[ids[0]].why


async def test_a_refused_question_refuses_its_record_alone() -> None:
    """The record with the poison is refused in one request; its neighbours are answered in it."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(poison="'number': 2", poison_refusal=True)) as server:
        scorer = scorer_to(server.base_url, calls)
        answers = await scorer.score(questions(4), soon(10))
        await scorer.close()
    assert statuses(answers) == ["answered", "answered", "refused", "answered"]
    assert [call.status for call in calls] == ["partial"]
    assert calls[0].error == "1 refused"


async def test_more_records_than_questions_allow_are_asked_in_several_requests() -> None:
    """No request has more than 400 questions, and every record is answered."""
    answers, calls, server = await asked(SandboxConfig(), 450)
    assert statuses(answers) == ["answered"] * 450
    assert sorted(len(call.records) for call in calls) == [150, 150, 150]
    assert server.meter.records == 450


@pytest.mark.parametrize(("fault", "status", "why"), [
    ("404", "rejected", "set HEADRACE_MODEL_API to chat"), ("401", "rejected", "HEADRACE_MODEL_API_KEY"),
    ("quota", "limited", "used up"), ("context", "invalid", "longer than"), ("filter", "refused", "filter"),
    ("html", "unavailable", "no JSON object"), ("empty", "unavailable", "no answers"), ("truncated", "unavailable", "no JSON"),
])  # fmt: skip
async def test_failures_end_as_those_of_chat_completions_do(fault: str, status: str, why: str) -> None:
    """The rows of the failure table, for a record alone."""
    answers, _, _ = await asked(SandboxConfig(faults={fault: 1.0}), 1)
    assert statuses(answers) == [status]
    assert why in answers[0].why


async def test_a_429_and_a_500_are_asked_again() -> None:
    """The first in its turn, the second after a pause."""
    answers, calls, _ = await asked(SandboxConfig(schedule=("429", "500")))
    assert statuses(answers) == ["answered"] * 4
    assert [call.status for call in calls] == ["limited", "unavailable", "ok"]


async def test_an_extra_parameter_that_is_refused_by_name_is_left_out() -> None:
    """Asked again without it, once."""
    answers, calls, _ = await asked(SandboxConfig(), 2, Ask(Judged, "p", extra={"unheard_of": 1}))
    assert statuses(answers) == ["answered"] * 2
    assert [call.status for call in calls] == ["rejected", "ok"]
    assert "unheard_of" not in calls[1].parameters


async def test_the_sandbox_refuses_more_than_400_questions() -> None:
    """With a 400, as the client's types say."""
    question = {"type": "predicate", "instructions": "Is it?"}
    body: Any = {"model": "m", "input": "x", "questions": [question] * (MOST_QUESTIONS + 1)}
    async with Sandbox(SandboxConfig()) as server, AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        with pytest.raises(Exception, match="400"):
            await client.decisions.create(**body)
        body["questions"] = [question] * MOST_QUESTIONS
        assert len((await client.decisions.create(**body)).answers) == MOST_QUESTIONS


async def test_the_probe_asks_what_will_be_asked() -> None:
    """An endpoint is looked at with a decision, not with a chat completion."""
    async with Sandbox(SandboxConfig(schedule=("404",))) as server:
        missing = await probe_model(server.base_url, None, "m", ask=True, api="decisions")
        there = await probe_model(server.base_url, None, "m", ask=True, api="decisions")
    assert missing.refused is not None
    assert "set HEADRACE_MODEL_API to chat" in missing.refused
    assert there.refused is None


def test_bodies_that_are_no_decision_are_told_apart() -> None:
    """An error object with status 200 is an outage; anything else is a broken protocol."""
    builder = DecisionBuilder(ASK, "m")
    request = builder.build(questions(1), Dialect())
    with pytest.raises(ModelUnavailable):
        builder.read(b'{"error": {"message": "upstream"}}', request)
    for body in (b"", b"[]", b"{}", b'{"answers": {}}', b'{"choices": []}', b"\xff"):
        with pytest.raises(ModelProtocolError):
            builder.read(body, request)
    for odd in (b'{"answers": [7, null, {"name": 3}, {}]}', b'{"answers": [], "usage": 7, "model": 9}'):
        assert builder.read(odd, request).tokens.input == 0


class Long(BaseModel):
    """More options than a request may ask about."""

    many: list[Literal[tuple(f"o{n}" for n in range(401))]] = Field(max_length=4)  # type: ignore[valid-type]


def test_an_ask_that_can_not_be_asked_so_is_refused_at_the_start() -> None:
    """Too many questions for one record."""
    with pytest.raises(ConfigError, match="401 questions, 400 is the most"):
        DecisionBuilder(Ask(Long, "p"), "m")


@pytest.mark.parametrize("builder", [DecisionBuilder, PromptBuilder])
@pytest.mark.parametrize(("name", "why"), [
    *((name, "that is ours") for name in ("model", "input", "questions", "messages", "response_format", "stream", "n")),
    *((name, "models get no tools") for name in ("tools", "tool_choice", "functions", "web_search_options", "plugins")),
])  # fmt: skip
def test_extra_sets_nothing_of_ours_and_no_tools_however_it_is_asked(builder: Any, name: str, why: str) -> None:
    """Refused at the start by name, for chat completions and decisions alike: an Ask may go to both."""
    with pytest.raises(ConfigError, match=f"Judged: extra may not set {name}, {why}"):
        builder(Ask(Judged, "p", extra={name: [{"type": "web_search"}]}), "m")
