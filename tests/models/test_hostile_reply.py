"""A server that answers in ways no server should: whoever asked gets a ModelError or an answer, and nothing else happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from models.chat.endpoint import Endpoint, refusal_of
from models.chat.failures import Overflow, Unexplained
from schemas.audit import Call
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable
from tests.support.scoring import chat, questions, soon, statuses

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """The base URL of a server that answers everything with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", handler)
    async with TestServer(app) as running:
        yield str(running.make_url("/v1"))


@pytest.mark.parametrize(
    "charset", ["base64", "zlib", "hex", "bz2", "uu", "quopri", "rot13", "utf-16", "idna", "punycode", "undefined", "x" * 30]
)
@pytest.mark.parametrize("body", [b"{}", b"\xff\xfe\xfd..."], ids=["json", "bytes"])
async def test_a_charset_that_is_none_is_one_more_rejection(charset: str, body: bytes) -> None:
    """Whatever codec the header of an error names, the status decides and the scorer answers."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(body=body, status=400, headers={"Content-Type": f"application/json; charset={charset}"})

    calls: list[Call] = []
    async with served(refuse) as base_url:
        scorer = chat(base_url, calls)
        answers = await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert statuses(answers) == ["rejected"]
    assert [call.status for call in calls] == ["rejected"]


@pytest.mark.parametrize("error", [AssertionError("sk-secret"), TypeError("x"), RecursionError(), KeyError("x")])
async def test_what_nobody_foresaw_is_told_by_its_type_alone(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of the SDK that is in no table leaves the endpoint as a ModelError without its text."""

    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(openai.AsyncOpenAI, "post", fail)
    monkeypatch.setattr(openai.AsyncOpenAI, "get", fail)
    endpoint = Endpoint("http://127.0.0.1:9/v1", None, connections=1, clock=lambda: 0)
    for asking in (endpoint.post(b"{}"), endpoint.models()):
        with pytest.raises(ModelProtocolError, match=rf"\({type(error).__name__}\)$"):
            await asking
    await endpoint.close()


async def test_a_reply_far_longer_than_was_reserved_is_not_read() -> None:
    """A completion padded to 4 MB for two records is a protocol error; an error of that size keeps its status."""
    status = 200

    async def pad(request: web.Request) -> web.Response:
        return web.json_response({"model": "m" * 4_000_000, "choices": [{"message": {"content": "{}"}}]}, status=status)

    calls: list[Call] = []
    async with served(pad) as base_url:
        scorer = chat(base_url, calls)
        await scorer.score(questions(2), soon(10))
        status = 401
        await scorer.score(questions(2), soon(10))
        await scorer.close()
    assert [call.status for call in calls] == ["protocol", "protocol", "rejected"]
    assert calls[0].error == "the response is larger than the transport accepts"


@pytest.mark.parametrize("status", [307, 400, 401, 429, 503])
async def test_of_a_long_error_the_status_alone_is_read(status: int) -> None:
    """Some servers quote the request, and one may send millions of numbers: reading them would hold up everybody else."""
    code, lengths = "context_length_exceeded", [1000, 70_000]

    async def refuse(request: web.Request) -> web.Response:
        body = f'{{"error": {{"code": "{code}", "message": "{"x" * lengths.pop(0)}"}}}}'
        return web.Response(text=body, status=status, content_type="application/json")

    read: list[tuple[type[ModelError], int]] = []
    async with served(refuse) as base_url:
        endpoint = Endpoint(base_url, "sk-test-secret", connections=1, clock=lambda: 0)
        while lengths:
            with pytest.raises(ModelError) as caught:
                await endpoint.post(b"{}")
            refusal = refusal_of(caught.value)
            assert refusal is not None
            read.append((type(caught.value), len(refusal.body)))
        await endpoint.close()
    (short, some), (long, none) = read
    assert some > 1000
    assert none == 0
    kinds = {307: ModelRejected, 400: Unexplained, 401: ModelRejected, 429: ModelLimited, 503: ModelUnavailable}
    assert long is kinds[status]
    assert short is (ModelLimited if status == 429 else Overflow)


@pytest.mark.parametrize("status", [307, 400, 401, 503])
async def test_the_audit_has_what_came_with_an_error(status: int) -> None:
    """The hash of the body of a refused request, and when its headers came, are in its Call."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(body=b'{"error": {"code": "x"}}', status=status)

    calls: list[Call] = []
    async with served(refuse) as base_url:
        scorer = chat(base_url, calls)
        await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert {call.response_hash for call in calls} == {sha256(b'{"error": {"code": "x"}}').hexdigest()}
    times = [[call.sent_at, call.first_at, call.done_at] for call in calls]
    assert all(all(each) and each == sorted(each, key=str) for each in times)


def says(message: dict[str, Any], **more: Any) -> Handler:
    """A completion of this message, whatever is asked."""

    async def answer(request: web.Request) -> web.Response:
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        said = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage} | more
        return web.json_response(said)

    return answer


SPOKEN = "Mr Miller's HIV test"


@pytest.mark.parametrize("message", [{"content": f"Sure! {SPOKEN}"}, {"content": None, "refusal": SPOKEN}])
async def test_what_is_said_of_several_is_kept_for_none(message: dict[str, Any]) -> None:
    """A useless reply or refusal may quote any record it is about: its words are an audit of one record, never of a Call."""
    calls: list[Call] = []
    async with served(says(message)) as base_url:
        scorer = chat(base_url, calls)
        (alone,) = await scorer.score(questions(1), soon(10))
        together = await scorer.score(questions(2), soon(10))
        await scorer.close()
    assert SPOKEN in alone.raw
    assert {len(call.records) for call in calls} == {1, 2}
    assert not any(SPOKEN in call.model_dump_json() for call in calls)
    about = {call.call_id: len(call.records) for call in calls}
    assert all(answer.raw is None or about[answer.call_id or ""] == 1 for answer in together)


async def test_no_words_of_a_model_reach_a_decision() -> None:
    """Why a record has no answer is told in words of ours, and names are plain: decisions are shown, logged and not erased."""
    spoken = f"\x1b[31m{SPOKEN} <script>"
    calls: list[Call] = []
    answers: list[Any] = []
    empty = [{"message": {"content": ""}, "finish_reason": spoken}]
    odd = says({}, choices=empty, model=f"m\x1b]0;{'x' * 300}")
    for handler in (says({"content": None, "refusal": spoken}), odd):
        async with served(handler) as base_url:
            scorer = chat(base_url, calls)
            answers += await scorer.score(questions(1), soon(10))
            await scorer.close()
    assert [answer.why for answer in answers] == ["the model refused", "the reply has no text (finish_reason unknown)"]
    assert answers[0].raw == spoken
    assert (answers[1].model_returned or "").startswith("m__0_xxx")
    assert len(answers[1].model_returned or "") <= 200
    assert not any("<" in call.model_dump_json() or "u001b" in call.model_dump_json() for call in calls)


async def test_cookies_are_not_kept() -> None:
    """What a server sets, for its host or a whole domain, does not come back to it with the next request."""
    seen: list[str | None] = []

    async def track(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        response = web.Response(body=b"{}", status=400)
        response.headers.add("Set-Cookie", "track=me; Path=/")
        response.headers.add("Set-Cookie", f"more=me; Path=/; Domain={request.url.host}")
        return response

    async with served(track) as base_url:
        # A name, since aiohttp keeps no cookies of a server that is addressed by its number.
        scorer = chat(base_url.replace("127.0.0.1", "localhost"))
        for _ in range(3):
            await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert seen == [None] * 3


async def test_the_endpoint_is_not_told_about_this_machine() -> None:
    """Neither system nor Python version nor the SDK's own telemetry goes out: only what a request needs."""
    seen: list[set[str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append({name.lower() for name in request.headers})
        return web.json_response({"data": []})

    async with served(handler) as base_url:
        endpoint = Endpoint(base_url, "key", connections=1, clock=lambda: 0)
        await endpoint.post(b"{}")
        await endpoint.models()
        await endpoint.close()
    needed = {"host", "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "user-agent"}
    assert len(seen) == 2
    assert set().union(*seen) <= needed
