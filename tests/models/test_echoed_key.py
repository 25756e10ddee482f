"""A server that says the API key back, wherever it can: nobody who reads logs, audits, answers or tracebacks finds it."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agents.engine.log_repeats import Repeats
from agents.engine.model_watch import ModelWatch, Watched
from models.chat.endpoint import Endpoint
from models.chat.probe import probe_model
from models.gates.breaker_gate import BreakerGate
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from schemas.errors import ModelError
from tests.support.scoring import chat, questions, soon

KEY = "sk-test-secret"


def refuses(key: str) -> web.Response:
    """A 401 that has it in every field of the error."""
    error = {"message": f"Incorrect API key provided: {key}", "type": key, "code": key, "param": key}
    return web.json_response({"error": error}, status=401, headers={"x-ratelimit-limit-requests": key})


def completes(key: str) -> web.Response:
    """A completion that has it in every text."""
    message = {"content": orjson.dumps({"answers": [{"id": key}], "note": key}).decode(), "refusal": key}
    return web.json_response({"model": key, "choices": [{"message": message, "finish_reason": key}], "usage": {}})


def fails(key: str) -> web.Response:
    """A 503 with a page that has it."""
    return web.Response(text=f"<html>{key}</html>", status=503, content_type="text/html")


async def everything(base_url: str, caplog: pytest.LogCaptureFixture, key: str = KEY) -> str:
    """All that a run leaves behind in which the key could be."""
    caplog.set_level(logging.DEBUG)
    calls: list[Call] = []
    breaker = BreakerGate("there")
    scorer = chat(base_url, calls, api_key=key, gates=(breaker,))
    watched = Watched(scorer, "agent", "review", ModelWatch(Repeats((), seconds=0.0)))
    answers = await watched.score(questions(2), soon(20))
    await watched.close()
    probed = await probe_model(base_url, key, "m", ask=True)
    endpoint = Endpoint(base_url, key, connections=1, clock=lambda: time.time_ns())
    said = ""
    try:
        said = repr(await endpoint.post(b"{}"))
    except ModelError as error:
        said = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)
    await endpoint.close()
    audit = b"".join(call.model_dump_json().encode() for call in calls).decode()
    return "\n".join((audit, repr(answers), repr(probed), said, breaker.stats.why, repr(scorer), caplog.text))


@pytest.mark.parametrize("answer", [refuses, completes, fails], ids=lambda answer: answer.__name__)
async def test_an_echoed_key_is_nowhere(answer: Callable[[str], web.Response], caplog: pytest.LogCaptureFixture) -> None:
    """Not in a Call, an Answer, a log at any level, a probe's report, an exception's text or its traceback."""
    seen: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return answer(request.headers["Authorization"].removeprefix("Bearer "))

    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", take)
    async with TestServer(app) as running:
        found = await everything(str(running.make_url("/v1")), caplog)
    assert set(seen) == {f"Bearer {KEY}"}
    assert KEY not in found


SLASHED = "bce-v3/ALTAK-abcdefgh/0123456789abcdef"
ESCAPED = SLASHED.replace("/", "\\/")
TWICE = SLASHED.replace("/", "\\\\/")
CODES = "".join(f"\\u{ord(char):04x}" for char in SLASHED)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, f'{{"error": {{"code": "ALTAK-abcdefgh", "param": "{key}", "message": "{key}"}}}}')
          for key in (ESCAPED, CODES) for status in (400, 401, 503)),
        *((200, f'{{"model": "{key}", "choices": [{{"finish_reason": "{key}", "message": {message}}}]}}')
          for key in (ESCAPED, CODES)
          for message in (f'{{"content": null, "refusal": "{key}"}}',
                          f'{{"content": "{{\\"answers\\": [{{\\"id\\": \\"a\\", \\"risk\\": \\"{TWICE}\\"}}]}}"}}')),
    ],
)  # fmt: skip
async def test_a_key_that_is_escaped_is_nowhere_either(status: int, body: str, caplog: pytest.LogCaptureFixture) -> None:
    """A slash may be written with a backslash, any character by its number, and an answer is JSON within JSON."""

    async def take(request: web.Request) -> web.Response:
        said = body
        if status == 200 and "answers" in body:
            asked = orjson.loads(await request.read()) if request.can_read_body else {}
            messages = asked.get("messages", [])
            if len(messages) > 1:
                said = body.replace('"id\\": \\"a', '"id\\": \\"' + orjson.loads(messages[1]["content"])["records"][0]["id"])
        return web.Response(text=said, status=status, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/v1/{rest:.*}", take)
    async with TestServer(app) as running:
        found = await everything(str(running.make_url("/v1")), caplog, SLASHED)
    for key in (SLASHED, ESCAPED, TWICE, CODES, "ALTAK"):
        assert key not in found


async def test_the_sandbox_echoes_it_when_told_to(caplog: pytest.LogCaptureFixture) -> None:
    """The fault is real: the body that comes over the wire has the key."""
    async with Sandbox(SandboxConfig(faults={"echo": 1.0})) as server:
        host = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host[0], int(host[1]))
        body = b'{"messages":[{"role":"user","content":"hello"}]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        raw = await reader.read()
        writer.close()
        assert KEY.encode() in raw
        assert KEY not in await everything(server.base_url, caplog)
