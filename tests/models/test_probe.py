"""The probe of a model endpoint, against real HTTP servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from models.chat.probe import probe_model
from models.sandbox.server import MODEL, Sandbox, SandboxConfig
from topics.dev_broker import free_port

KEY = "sk-very-secret-key"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(models: Handler, chat: Handler) -> AsyncIterator[str]:
    """A base URL where these two answer."""
    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def status(code: int) -> Handler:
    """Answers with that status."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": f"not with {KEY}"}}, status=code)

    return answer


async def completion(_request: web.Request) -> web.Response:
    """Answers as a model would."""
    return web.json_response({"model": "m", "choices": [{"message": {"content": "OK"}, "finish_reason": "stop"}]})


async def listing(_request: web.Request) -> web.Response:
    """Lists one model."""
    return web.json_response({"data": [{"id": "m"}]})


@pytest.mark.parametrize("ask", [True, False])
async def test_a_model_that_answers_is_neither_refused_nor_doubted(ask: bool) -> None:
    """The right key and name give nothing to tell; without `ask` no completion is paid for."""
    async with Sandbox(SandboxConfig(api_key=KEY)) as sandbox:
        found = await probe_model(sandbox.base_url, KEY, MODEL, ask=ask)
        assert (found.refused, found.doubts) == (None, ())
        assert sandbox.meter.completions == int(ask)


@pytest.mark.parametrize("ask", [True, False])
async def test_a_wrong_key_is_refused_by_its_setting_and_not_shown(ask: bool) -> None:
    """401 names HEADRACE_MODEL_API_KEY and holds no key."""
    async with Sandbox(SandboxConfig(api_key="another")) as sandbox:
        found = await probe_model(sandbox.base_url, KEY, MODEL, ask=ask)
    assert "HEADRACE_MODEL_API_KEY" in (found.refused or "")
    assert KEY not in str(found)


async def test_where_nobody_listens_the_address_is_to_mend() -> None:
    """A refused connection names HEADRACE_MODEL_BASE_URL."""
    found = await probe_model(f"http://127.0.0.1:{free_port()}/v1", KEY, "m", ask=False)
    assert "HEADRACE_MODEL_BASE_URL" in (found.refused or "")
    assert KEY not in str(found)


async def test_a_name_that_is_not_listed_is_a_doubt() -> None:
    """Some endpoints list less than they serve."""
    async with serving(listing, completion) as url:
        found = await probe_model(url, None, "other", ask=True)
    assert found.refused is None
    assert found.doubts == ("it does not list 'other', but 'm': check HEADRACE_MODEL_NAME",)


@pytest.mark.parametrize(
    ("code", "setting"),
    [(401, "HEADRACE_MODEL_API_KEY"), (403, "HEADRACE_MODEL_NAME"), (404, "HEADRACE_MODEL_NAME"), (307, "_BASE_URL")],
)
async def test_a_list_for_everybody_says_nothing_about_the_key(code: int, setting: str) -> None:
    """Where anybody may list the models, it is the chat request that is refused."""
    async with serving(listing, status(code)) as url:
        found = await probe_model(url, KEY, "m", ask=True)
    assert setting in (found.refused or "")
    assert KEY not in str(found)


@pytest.mark.parametrize("code", [403, 404, 500])
async def test_a_list_that_is_refused_settles_nothing(code: int) -> None:
    """A key that may ask and not list, or an endpoint without a list, is fine."""
    async with serving(status(code), completion) as url:
        found = await probe_model(url, KEY, "m", ask=False)
    assert (found.refused, found.doubts) == (None, ())


@pytest.mark.parametrize("code", [400, 429, 503])
async def test_what_may_pass_is_a_doubt(code: int) -> None:
    """A limit, an outage or a parameter that is not liked refuses nothing."""
    async with serving(listing, status(code)) as url:
        found = await probe_model(url, KEY, "m", ask=True)
    assert found.refused is None
    assert len(found.doubts) == 1


@pytest.mark.parametrize(
    ("refused", "limits"),
    [
        ((), [("max_tokens", 1)]),
        (("max_tokens",), [("max_tokens", 1), ("max_completion_tokens", 16)]),
        (("max_tokens", "max_completion_tokens"), [("max_tokens", 1), ("max_completion_tokens", 16), None]),
    ],
    ids=["taken", "by its other name", "not taken"],
)
async def test_the_chat_request_costs_a_few_tokens(refused: tuple[str, ...], limits: list[tuple[str, int] | None]) -> None:
    """Its output is bounded by whichever name the endpoint takes; a reply that is cut by that, or has no text, is fine."""
    asked: list[tuple[str, int] | None] = []

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        limit = next(((name, body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body), None)
        asked.append(limit)
        if limit is not None and limit[0] in refused:
            return web.json_response({"error": {"message": "unsupported", "param": limit[0]}}, status=400)
        return web.json_response({"model": "m", "choices": [{"message": {"content": None}, "finish_reason": "length"}]})

    async with serving(status(404), chat) as url:
        found = await probe_model(url, KEY, "m", ask=False)
    assert (found.refused, found.doubts) == (None, ())
    assert asked == limits


async def test_an_endpoint_that_says_nothing_is_not_waited_for() -> None:
    """Two requests without an answer in their time are a refusal."""

    over = asyncio.Event()

    async def silent(_request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with serving(silent, silent) as url:
        found = await probe_model(url, KEY, "m", ask=True, seconds=0.3)
        over.set()
    assert found.refused == "no answer within 0.3 s, of two requests: check HEADRACE_MODEL_BASE_URL"


async def test_a_further_models_own_setting_is_named() -> None:
    """What is wrong with the cheap model is told of HEADRACE_MODEL_CHEAP, not of the first model's settings."""
    async with Sandbox(SandboxConfig()) as server:
        found = await probe_model(server.base_url, None, "no-such", ask=False, setting="HEADRACE_MODEL_CHEAP")
    (doubt,) = found.doubts
    assert "check name in HEADRACE_MODEL_CHEAP" in doubt
    assert "HEADRACE_MODEL_NAME" not in doubt
