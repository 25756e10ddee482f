"""The sandbox's `POST /v1/moderations`: flags each text that holds WORD, for the category that stands behind it.

It is no moderation model. `sandbox-flag:violence` in a text is flagged as "violence", the bare word as "sandbox".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

WORD: Final = "sandbox-flag"
_FLAG: Final = re.compile(rf"{WORD}(?::([a-z][a-z/-]{{0,40}}))?")


def moderation(denied: Callable[[web.Request], web.Response | None]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler, behind the sandbox's check of the key: one result for each input, in its order; 400 for what is no input."""

    async def moderate(request: web.Request) -> web.Response:
        try:
            given = orjson.loads(await request.read())["input"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            given = None
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            error = {"message": "input must be a text or a list of texts", "type": "sandbox_error", "param": "input"}
            return web.json_response({"error": error}, status=400)
        results = [_result(text) for text in texts]
        return denied(request) or web.json_response({"id": "modr-sandbox", "model": "sandbox/flag-word", "results": results})

    return moderate


def _result(text: str) -> dict[str, Any]:
    named = {found[1] or "sandbox" for found in _FLAG.finditer(text)}
    return {"flagged": bool(named), "categories": {name: name in named for name in {"sandbox", *named}}}
