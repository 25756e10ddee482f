"""An error that quotes the request is understood by what the endpoint says of its own, and not by what a record says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import BaseModel

from models.chat.chat import ChatScorer
from models.chat.line import Api
from models.contract import Answer, Ask, Question
from models.gates.breaker_gate import BreakerGate
from models.sandbox.decisions import decided, decision, read_wanted
from schemas.marks import Untrusted
from tests.support.scoring import Judged, line_to, soon, statuses

NAMES = "enable_thinking false max_tokens at most too large temperature top_p seed response_format safety_identifier"
PROMPT = "Judge whether each permission to use an API key is one that the organisation gives."
ASKS: dict[Api, Ask[Judged]] = {
    "chat": Ask(Judged, PROMPT, temperature=0.2, top_p=0.9, seed=1, max_tokens=400),
    "decisions": Ask(Judged, PROMPT, extra={"safety_identifier": "x"}),
}
HALVING = 1 + 10
"""Requests that find one record among 32."""

Says = Callable[[dict[str, Any], str], tuple[int, Any] | None]
"""What an endpoint has against a request and the notes in it: the status and the body of an error."""


class Noted(BaseModel):
    """Features with a text from outside."""

    note: Annotated[str, Untrusted()]


def noted(poison: str, count: int = 32, other: str = "fine") -> list[Question]:
    """Questions of which the tenth has this note."""
    return [Question(f"d{place}", Noted(note=poison if place == 9 else other)) for place in range(count)]


def poisoned(status: int, says: Callable[[str], Any]) -> Says:
    """Refuses what has the word POISON in a note, and says something about that note."""

    def check(body: dict[str, Any], note: str) -> tuple[int, Any] | None:
        return (status, says(note)) if "POISON" in note else None

    return check


class Picky:
    """An endpoint of both APIs that judges as `says` does; `asked` counts requests."""

    def __init__(self, api: Api, says: Says) -> None:
        self.api, self.says = api, says
        self.asked = 0
        self.gate = BreakerGate("there")

    async def answer(self, request: web.Request) -> web.Response:
        """One request of either API."""
        self.asked += 1
        raw = await request.read()
        body = orjson.loads(raw)
        if self.api == "decisions":
            records = [one for part in body["input"][1]["content"] for one in part["data"]["records"]]
        else:
            records = orjson.loads(body["messages"][1]["content"])["records"]
        notes = [record["features"]["note"] for record in records]
        refused = self.says(body, next((note for note in notes if "POISON" in note), ""))
        if refused is not None:
            return web.json_response(refused[1], status=refused[0])
        if self.api == "decisions":
            return web.json_response(decision(decided(read_wanted(raw), lambda _: False), "m", 10, 10))
        answers = orjson.dumps({"answers": [{"id": one["id"], "risk": 1, "grade": "good"} for one in records]}).decode()
        return web.json_response({"choices": [{"message": {"content": answers}, "finish_reason": "stop"}]})

    @asynccontextmanager
    async def asker(self) -> Any:
        """A scorer of it."""
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self.answer)
        app.router.add_post("/v1/decisions", self.answer)
        async with TestServer(app) as running:
            line = line_to(str(running.make_url("/v1")), api=self.api, gates=[self.gate])
            scorer = ChatScorer(ASKS[self.api], line, agent="test")
            try:
                yield scorer
            finally:
                await scorer.close()


async def found(server: Picky, asked: list[Question], *, warm: bool = True) -> tuple[list[Answer[Judged]], int]:
    """The answers, and how many requests they took; `warm`: somebody was answered before."""
    async with server.asker() as scorer:
        if warm:
            await scorer.score([Question("w", Noted(note="warm"))], soon(20))
        before = server.asked
        answers = list(await scorer.score(asked, soon(20)))
        taken = server.asked - before
        assert statuses(await scorer.score([Question("z", Noted(note="well"))], soon(20))) == ["answered"]
    return answers, taken


def only_poison(answers: list[Answer[Judged]]) -> bool:
    """Whether all but the tenth are answered, and that one is refused as nobody knows why."""
    return statuses(answers) == ["rejected" if place == 9 else "answered" for place in range(32)]


def quoting(note: str) -> Any:
    """An error object as most servers send it, with the text in it."""
    return {"error": {"message": f"invalid content: {note}", "type": "invalid_request_error", "code": None, "param": None}}


@pytest.mark.parametrize("api", ["chat", "decisions"])
@pytest.mark.parametrize("warm", [True, False], ids=["known", "cold"])
@pytest.mark.parametrize(("status", "text"), [
    (400, "POISON my api key"), (400, f"POISON {NAMES}"), (400, "POISON\n\tit does \"not support\" <that> in my organisation é"),
    (403, "POISON see the permission slip"), (403, "POISON my organization has no access to it"),
])  # fmt: skip
async def test_what_a_record_says_in_an_error_costs_its_neighbours_nothing(status: int, text: str, warm: bool, api: Api) -> None:
    """An error that quotes the record is no word about the key or a parameter: ten requests more, and the breaker stays shut."""
    server = Picky(api, poisoned(status, quoting))
    answers, taken = await found(server, noted(text), warm=warm)
    assert only_poison(answers)
    assert taken == HALVING
    assert server.gate.breaker.state == "closed"


def fastapi(body: dict[str, Any], note: str) -> tuple[int, Any] | None:
    """What FastAPI says: where, what, and the input as it came."""
    where = ["body", *(["input", 1, "content"] if "input" in body else ["messages", 1, "content"])]
    return (422, {"detail": [{"type": "value_error", "loc": where, "msg": "unsafe", "input": body}]}) if note else None


@pytest.mark.parametrize("api", ["chat", "decisions"])
@pytest.mark.parametrize("says", [
    poisoned(422, lambda _: {"error": {"message": "invalid content"}}), poisoned(422, quoting), fastapi,
    poisoned(422, lambda note: {"detail": note}),
    poisoned(422, lambda note: {"detail": [{"msg": f"unsafe: {note}", "input": note}]}),
], ids=["no reason", "quoting", "fastapi", "a text", "no place"])  # fmt: skip
async def test_what_can_not_be_processed_is_looked_for_by_halves(says: Says, api: Api) -> None:
    """A 422 about a record is as a 400 about it, in whatever way it is said."""
    answers, taken = await found(Picky(api, says), noted(f"POISON {NAMES} my api key"))
    assert only_poison(answers)
    assert taken == HALVING


@pytest.mark.parametrize("detail", [
    {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 1},
    {"type": "extra_forbidden", "loc": ["body"], "msg": "seed: extra inputs are not permitted", "input": {"temperature": 0.2}},
])  # fmt: skip
async def test_a_parameter_that_can_not_be_processed_is_left_out(detail: dict[str, Any]) -> None:
    """By the place that FastAPI names, or what it says."""
    calls: list[dict[str, Any]] = []

    def says(body: dict[str, Any], _: str) -> tuple[int, Any] | None:
        calls.append(body)
        return (422, {"detail": [detail]}) if "seed" in body else None

    answers, taken = await found(Picky("chat", says), noted("fine"), warm=False)
    assert (statuses(answers), taken) == (["answered"] * 32, 2)
    assert "temperature" in calls[-1]


@pytest.mark.parametrize("quote", [repr, ascii, lambda text: orjson.dumps(text).decode(), str.upper, lambda text: text[:60]])
async def test_however_it_is_quoted(quote: Callable[[str], str]) -> None:
    """Escaped for Python, in ASCII, as JSON, in capitals or in part."""
    server = Picky("chat", poisoned(400, lambda note: quoting(quote(note))))
    answers, taken = await found(server, noted(f"POISON\nis “{NAMES}”\tin my api key"))
    assert only_poison(answers)
    assert taken == HALVING


@pytest.mark.parametrize("message", ["unsafe: temperature", "unsafe words: enable_thinking, false. Also: api key"])
async def test_a_word_that_the_record_has_too_is_no_sign_where_the_endpoint_is_known_to_answer(message: str) -> None:
    """A list of words instead of the text: they stand in the record, and what is asked so was answered a moment ago."""
    server = Picky("chat", poisoned(400, lambda _: {"error": {"message": message}}))
    answers, taken = await found(server, noted("POISON temperature, then enable_thinking; false, or an api key"))
    assert only_poison(answers)
    assert taken == HALVING


@pytest.mark.parametrize("warm", [True, False], ids=["known", "cold"])
async def test_asking_differently_in_vain_is_not_done_for_each_half(warm: bool) -> None:
    """The endpoint's own words look like a parameter's: one ladder finds out that they are none, two where nobody knew it."""
    server = Picky("chat", poisoned(400, lambda _: {"error": {"message": "our guided filter has something against this"}}))
    answers, taken = await found(server, noted("POISON"), warm=warm)
    assert only_poison(answers)
    assert taken == HALVING + (2 if warm else 4)


async def test_an_endpoint_that_refuses_everything_is_asked_differently_by_the_halves_at_last() -> None:
    """A ladder for the batch, one for each half, and that is all."""
    async with (server := Picky("chat", lambda body, _: (400, {"error": {"message": "our guided filter"}}))).asker() as scorer:
        assert statuses(await scorer.score(noted("POISON fine"), soon(20))) == ["rejected"] * 32
    assert server.asked == 3 * 3


@pytest.mark.parametrize("other", ["fine", "the temperature is at most 20, it is not supported"])
@pytest.mark.parametrize("poison", ["fine", "POISON temperature"])
async def test_a_parameter_that_is_refused_is_left_out_whatever_records_say(poison: str, other: str) -> None:
    """The name alone, as many servers send it: neither records about temperatures nor a poison in the first batch hide it."""

    def says(body: dict[str, Any], note: str) -> tuple[int, Any] | None:
        if "temperature" in body:
            return 400, {"error": {"message": "temperature: unknown"}}
        return (400, quoting(note)) if note else None

    answers, taken = await found(Picky("chat", says), noted(poison, other=other), warm=False)
    assert only_poison(answers) if "POISON" in poison else statuses(answers) == ["answered"] * 32
    assert taken <= HALVING + 3


async def test_a_parameter_that_is_refused_one_day_is_left_out_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered a while ago is not known to be: a word that all records have too is a sign again."""
    refuses = set[str]()

    def says(body: dict[str, Any], _: str) -> tuple[int, Any] | None:
        return next(((400, {"error": {"message": f"{name}: unknown"}}) for name in refuses if name in body), None)

    async with Picky("chat", says).asker() as scorer:
        assert statuses(await scorer.score(noted("the temperature", other="temperature"), soon(20))) == ["answered"] * 32
        refuses.add("temperature")
        assert statuses(await scorer.score(noted("the temperature", other="temperature"), soon(20))) == ["rejected"] * 32
        monkeypatch.setattr("models.chat.ladder.KNOWN_SECONDS", 0.0)
        assert statuses(await scorer.score(noted("the temperature", other="temperature"), soon(20))) == ["answered"] * 32


async def test_a_wrong_key_is_believed_whatever_records_say() -> None:
    """Where all say what the endpoint says, three requests find out; where half of them does not, the breaker opens at once."""
    refusing: Says = lambda body, _: (403, {"error": {"message": "You have no permission"}})  # noqa: E731
    async with (server := Picky("chat", refusing)).asker() as scorer:
        await scorer.score(noted("permission", other="permission"), soon(20))
        assert (server.asked, server.gate.breaker.state) == (3, "closed")
        await scorer.score(noted("permission"), soon(20))
        assert server.gate.breaker.state == "open"


@pytest.mark.parametrize("api", ["chat", "decisions"])
async def test_an_error_about_the_records_is_not_taken_for_one_about_a_parameter(api: Api) -> None:
    """Its `param` says so, whatever names are in the message."""
    where = "input[1].content" if api == "decisions" else "messages[1].content"
    server = Picky(api, poisoned(400, lambda _: {"error": {"message": f"no {NAMES} and no api key", "param": where}}))
    answers, taken = await found(server, noted("POISON"))
    assert only_poison(answers)
    assert taken == HALVING


@pytest.mark.parametrize("api", ["chat", "decisions"])
async def test_a_request_that_is_quoted_as_a_whole_says_nothing(api: Api) -> None:
    """Its parameters stand in the error as the server's language writes them, and the agent's prompt that speaks of keys."""

    def says(body: dict[str, Any], note: str) -> tuple[int, Any] | None:
        return (400, {"message": f"1 error: can not use {body!r}", "code": 400}) if note else None

    answers, taken = await found(Picky(api, says), noted("POISON"))
    assert only_poison(answers)
    assert taken == HALVING
