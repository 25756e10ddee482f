"""A front before a model server: it keeps a log of every request, and finishes those whose client has gone, as providers do.

The sandbox drops a request when its client does, and then meters nothing of it; a provider has begun to work and bills it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Literal

import aiohttp
import orjson
from aiohttp import web

Way = Literal["refusal", "filter"]
REFUSAL = "I can not help with this."


@dataclass(slots=True)
class Served:
    """One request. `who` is the API key that it came with, `digest` the SHA-256 of its body in hex, as in a Call; `records` the
    features of the records in it.

    Times are epoch seconds, `ended` None while it is worked on; tokens are those of the reply's usage.
    """

    who: str
    digest: str
    records: Sequence[Mapping[str, Any]]
    began: float
    ended: float | None = None
    input: int = 0
    cached: int = 0
    output: int = 0
    poisoned: bool = False

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input + self.output


class Front:
    """`async with Front(base_url) as front: front.base_url`. A request whose records hold a word of `poison` is refused whole.

    `way` is how: a refusal in place of the answer, which bills its input, or a 400 of a content filter.
    """

    def __init__(self, base_url: str, *, poison: Collection[str] = (), way: Way = "refusal") -> None:
        self.log: list[Served] = []
        self._to = base_url
        self._poison = tuple(poison)
        self._way = way
        self._client: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    @property
    def under_way(self) -> Sequence[Served]:
        """The requests that are being worked on."""
        return [served for served in self.log if served.ended is None]

    @property
    def tokens(self) -> int:
        """Input and output of all requests that have ended."""
        return sum(served.tokens for served in self.log)

    async def __aenter__(self) -> Front:
        self._client = aiohttp.ClientSession()
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        # handler_cancellation is off: a handler goes on when its client has gone.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._runner is not None
        assert self._client is not None
        await self._runner.cleanup()
        await self._client.close()

    async def _models(self, request: web.Request) -> web.Response:
        assert self._client is not None
        async with self._client.get(f"{self._to}/models") as reply:
            return web.Response(body=await reply.read(), status=reply.status, content_type="application/json")

    async def _chat(self, request: web.Request) -> web.Response:
        assert self._client is not None
        body = await request.read()
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        served = Served(key, sha256(body).hexdigest(), _records(body), time.time())
        self.log.append(served)
        try:
            if any(word in str(record) for record in served.records for word in self._poison):
                served.poisoned = True
                return self._refuse(served, len(body))
            async with self._client.post(f"{self._to}/chat/completions", data=body, headers=_headers(request)) as reply:
                given = await reply.read()
                if reply.status == 200:
                    _count(served, given)
                return web.Response(body=given, status=reply.status, content_type="application/json")
        finally:
            served.ended = time.time()

    def _refuse(self, served: Served, size: int) -> web.Response:
        if self._way == "filter":
            error = {"message": "The prompt was filtered.", "code": "content_filter", "param": None}
            return web.json_response({"error": error}, status=400)
        served.input, served.output = -(-size // 4), 8
        message = {"role": "assistant", "content": None, "refusal": REFUSAL}
        usage = {"prompt_tokens": served.input, "completion_tokens": served.output}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"id": "refused", "object": "chat.completion", "created": 0, "model": "front", "choices": [choice]}
        return web.json_response(reply | {"usage": usage})


def _records(body: bytes) -> list[Mapping[str, Any]]:
    """Of a request in the layout of models.chat.prompt; whoever asks again adds messages behind it."""
    for message in orjson.loads(body)["messages"]:
        try:
            return [record["features"] for record in orjson.loads(message["content"])["records"]]
        except (ValueError, KeyError, TypeError):
            continue
    return []


def _headers(request: web.Request) -> dict[str, str]:
    kept = {name: request.headers[name] for name in ("Authorization",) if name in request.headers}
    return kept | {"Content-Type": "application/json"}


def _count(served: Served, given: bytes) -> None:
    usage: dict[str, Any] = orjson.loads(given)["usage"]
    served.input, served.output = usage["prompt_tokens"], usage["completion_tokens"]
    served.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
