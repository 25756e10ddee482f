"""Each server that the sandbox can imitate gets asked in the way it understands, after as few refused requests as it takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, Field

from models.chat import scout
from models.chat.chat import ChatScorer
from models.chat.dialect import Dialect, adapt, joined
from models.contract import Ask, Question
from models.gates.breaker_gate import BreakerGate
from models.sandbox.profiles import PROFILES
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from schemas.errors import ConfigError
from tests.support.scoring import Judged, Shown, chat, line_to, questions, soon, statuses

ASK = Ask(Judged, "Judge the risk of each record.", seed=7, extra={"top_k": 5})
REFUSALS = {
    "openai": 1,  # top_k
    "openai-reasoning": 3,  # top_k, max_tokens, temperature
    "azure": 1,  # top_k
    "deepseek": 1,  # json_schema
    "deepseek-old": 1,  # json_schema, as a 422
    "dashscope": 1,  # thinking
    "qianfan": 1,  # a temperature of 0
    "vllm": 0,
    "ollama": 0,
    "llamacpp": 0,
}
"""Requests refused before the first is answered: one for each thing that the server does not take."""


def scorer_of(ask: Ask[Judged], server: Sandbox, calls: list[Call]) -> ChatScorer[Judged]:
    """A scorer of another Ask than the tests' usual one."""
    return ChatScorer(ask, line_to(server.base_url), agent="test", on_call=calls.append)


def test_every_profile_has_its_number_of_refusals() -> None:
    """A profile that is added has to say what it costs to find it out."""
    assert set(REFUSALS) == set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
async def test_each_server_answers_after_few_refusals_and_then_at_once(name: str) -> None:
    """All records are answered, by the expected number of refused requests at the first batch and none at the second."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(profile=name)) as server:
        scorer = scorer_of(ASK, server, calls)
        first = await scorer.score(questions(4), soon(20))
        second = await scorer.score(questions(4), soon(20))
        await scorer.close()
        assert server.meter.records == 8
    assert statuses([*first, *second]) == ["answered"] * 8
    assert [call.status for call in calls] == ["rejected"] * REFUSALS[name] + ["ok", "ok"]
    assert all(call.tokens.input > 0 for call in calls if call.status == "ok")


@pytest.mark.parametrize("name", PROFILES)
async def test_each_server_s_own_words_for_a_long_request_are_understood(name: str) -> None:
    """Whether it refuses or cuts, a batch that is longer than the context is divided until it fits."""
    async with Sandbox(SandboxConfig(profile=name, context=900)) as server:
        scorer = scorer_of(Ask(Judged, "Judge."), server, [])
        answers = await scorer.score([Question(f"d{n}", Shown(number=n, note="x" * 20)) for n in range(48)], soon(30))
        await scorer.close()
    assert statuses(answers) == ["answered"] * 48


async def test_a_newer_ollama_refuses_a_long_request_in_an_error_within_an_error() -> None:
    """The words of the server behind it are found in the message."""
    async with Sandbox(SandboxConfig(profile="ollama", context=900, cuts=False)) as server:
        scorer = chat(server.base_url)
        answers = await scorer.score([Question(f"d{n}", Shown(number=n, note="x" * 20)) for n in range(48)], soon(30))
        await scorer.close()
    assert statuses(answers) == ["answered"] * 48


class Coded(BaseModel):
    """An answer with a text in a form that not every server can hold a model to."""

    code: str = Field(pattern="^[A-Z]+$", max_length=5)


async def test_a_schema_that_a_server_can_not_build_is_asked_for_in_words() -> None:
    """llama.cpp can not make a grammar of every regular expression; it is then asked for a JSON object."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(profile="llamacpp")) as server:
        scorer = ChatScorer(Ask(Coded, "Judge."), line_to(server.base_url), agent="test", on_call=calls.append)
        await scorer.score(questions(1), soon(20))
        await scorer.close()
    assert [call.parameters["response_format"] for call in calls[:2]] == ["json_schema", "json_object"]


@pytest.mark.parametrize("name", [name for name, profile in PROFILES.items() if profile.filtered is not None])
async def test_each_server_s_own_words_for_a_filter_are_understood(name: str) -> None:
    """One record that its filter does not like is refused alone; the endpoint is not taken to be out."""
    asked = questions(8)
    asked[3] = Question("d3", Shown(number=3, note="verboten"))
    async with Sandbox(SandboxConfig(profile=name, poison="verboten")) as server:
        scorer = chat(server.base_url)
        answers = await scorer.score(asked, soon(20))
        await scorer.close()
    assert statuses(answers) == ["refused" if number == 3 else "answered" for number in range(8)]


@pytest.mark.parametrize(("name", "most"), [("openai", 16_384), ("deepseek", 8192), ("dashscope", 8192)])
async def test_a_limit_on_output_is_kept_once_it_is_told(name: str, most: int) -> None:
    """A batch that reserves more than the model may say is asked with what it may, and the next one at once."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(profile=name)) as server:
        scorer = scorer_of(Ask(Judged, "Judge.", max_tokens=400), server, calls)
        answers = [answer for _ in range(2) for answer in await scorer.score(questions(64), soon(20))]
        await scorer.close()
    assert statuses(answers) == ["answered"] * 128
    served = [call for call in calls if call.status == "ok"]
    assert [call.tokens_reserved for call in served] == [most] * 2
    assert calls.index(served[0]) <= 2
    assert calls[-1] is served[1]


@pytest.mark.parametrize("name", ["openai-reasoning", "deepseek", "dashscope"])
async def test_sixty_four_that_start_together_are_refused_no_more_than_one(name: str) -> None:
    """The first request finds out what the endpoint takes; the others wait for it and are asked so."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(profile=name, latency="20ms")) as server:
        scorer = scorer_of(ASK, server, calls)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(30)) for _ in range(64)))
        await scorer.close()
        assert server.meter.requests == 64 + REFUSALS[name]
    assert {answer.status for answers in rounds for answer in answers} == {"answered"}
    assert [call.status for call in calls].count("rejected") == REFUSALS[name]


async def test_a_slow_first_answer_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not refused soon is being worked on: the others leave while the first one is still under way."""
    monkeypatch.setattr(scout, "PATIENCE", 0.1)
    async with Sandbox(SandboxConfig(latency="1s")) as server:
        scorer = chat(server.base_url)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(30)) for _ in range(8)))
        await scorer.close()
        assert server.meter.most_in_flight == 8
    assert {answer.status for answers in rounds for answer in answers} == {"answered"}


async def test_where_the_first_fails_the_next_finds_out() -> None:
    """An endpoint that answers the first request with an error, or not in time, is not waited for by all."""
    async with Sandbox(SandboxConfig(schedule=("500", "500", "500", "404"), rejects=frozenset({"json_schema"}))) as server:
        scorer = chat(server.base_url)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(30)) for _ in range(6)))
        await scorer.close()
    assert [answers[0].status for answers in rounds].count("answered") >= 4


async def test_what_a_model_thinks_is_never_taken_for_its_answer() -> None:
    """A draft in `reasoning_content`, or inside a think block, has no say; a block that does not end is no answer."""
    async with Sandbox(SandboxConfig(profile="vllm", schedule=("think", "think-open", "null-content"))) as server:
        scorer = chat(server.base_url)
        (first,) = await scorer.score(questions(1), soon(20))
        (second,) = await scorer.score(questions(1), soon(20))
        await scorer.close()
        assert server.meter.requests == 3
    assert first.status == "answered"
    assert second.status == "invalid"  # the second try had no text at all


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    """The message lists them."""
    with pytest.raises(ConfigError, match="'mistral' is none of openai, "):
        Sandbox(SandboxConfig(profile="mistral"))


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("max_tokens is too large: 10272. This model supports at most 4096 completion tokens, whereas you provided 10272.",
         Dialect(most_output=4096)),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", Dialect(most_output=8192)),
        ("`max_completion_tokens` is not valid: integer above maximum value, expected a value <= 9000, but got 10272 instead.",
         Dialect(most_output=9000)),
        ("max_tokens is too large", Dialect(most_output=5136)),
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", Dialect(limit="max_completion_tokens")),
        ("enable thinking can not be support when `stream=False`", Dialect(thinking=False)),
        ("Json mode response is not supported when enable_thinking is true", Dialect(thinking=False)),
        ("Unknown parameter: 'enable_thinking'.", Dialect(without=frozenset({"enable_thinking"}))),
        ("Failed to initialize samplers: failed to parse grammar", Dialect("json_object")),
        ("Invalid schema for response_format 'Judged': 'maximum' is not permitted.", Dialect("json_object")),
        ("something else", None),
    ],
)  # fmt: skip
def test_what_servers_say_is_understood(message: str, wanted: Dialect | None) -> None:
    """Words of servers as they were seen, and what is tried next."""
    assert adapt(Dialect(), {"message": message}, ("temperature", "enable_thinking"), 10_272) == wanted


def test_what_two_have_found_out_is_known_to_both() -> None:
    """Neither forgets the other's refusals, and joining adds nothing twice."""
    one = Dialect("json_object", without=frozenset({"seed"}), most_output=100)
    other = Dialect(limit="max_completion_tokens", without=frozenset({"top_k"}), most_output=50, thinking=False)
    both = Dialect("json_object", "max_completion_tokens", frozenset({"seed", "top_k"}), 50, thinking=False)
    assert joined(one, other) == joined(other, one) == joined(both, one) == both


def test_a_limit_that_is_refused_to_the_last_ends() -> None:
    """Lowering it stops at what could hold no answer."""
    dialect: Dialect | None = Dialect()
    reserved, steps = 10_000, 0
    while dialect is not None:
        dialect = adapt(dialect, {"message": "max_tokens is too large"}, (), reserved)
        if dialect is not None and dialect.most_output is not None:
            reserved, steps = dialect.most_output, steps + 1
    assert steps < 12


async def test_a_filter_with_a_403_is_about_the_record_and_not_the_key() -> None:
    """What a vendor's filter refuses with the status of a wrong key does not open the breaker."""
    asked = [Question("d0", Shown(number=1, note="verboten"))]
    breaker = BreakerGate("there")
    async with Sandbox(SandboxConfig(profile="qianfan", poison="verboten")) as server:
        scorer = chat(server.base_url, gates=(breaker,))
        (answer,) = await scorer.score(asked, soon(20))
        await scorer.close()
    assert (answer.status, breaker.breaker.state) == ("refused", "closed")


async def test_every_parameter_reaches_the_wire_and_the_call() -> None:
    """What the agent sets is in the body that the endpoint got and in the audit, by the same names and values."""
    ask = Ask(
        Judged, "Judge.", max_tokens=50, temperature=0.3, top_p=0.9, presence_penalty=0.1, frequency_penalty=-0.2, seed=11,
        extra={"top_k": 5, "reasoning_effort": "low"},
    )  # fmt: skip
    seen: list[dict[str, Any]] = []

    class Watching(Sandbox):
        def _take(self, asked: Any, tokens: int) -> Any:
            seen.append(dict(asked.request))
            return super()._take(asked, tokens)

    calls: list[Call] = []
    async with Watching() as server:
        scorer = scorer_of(ask, server, calls)
        await scorer.score(questions(2), soon(20))
        await scorer.close()
    wanted = {
        "temperature": 0.3, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": -0.2, "seed": 11, "top_k": 5,
        "reasoning_effort": "low", "max_tokens": 132,
    }  # fmt: skip
    assert {name: value for name, value in seen[0].items() if name not in ("model", "messages", "response_format")} == wanted
    assert [call.parameters for call in calls] == [{"response_format": "json_schema", **wanted}]
