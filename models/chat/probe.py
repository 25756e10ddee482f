"""Is the configured model there, and does it take our key? Asked once, before anything depends on it, with no record in it.

GET /models tells what the endpoint offers. Not all have it, some serve it to anybody, and some keys may ask a model and not list
them: so what it refuses settles nothing, and one smallest chat request does. That one costs a few tokens: its answer is bounded
to one, or to sixteen by the limit's other name where the first is not taken, as by models that think. Only an endpoint that
refuses both is asked without a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import openai
import orjson

from models.chat.completion import read_completion
from models.chat.endpoint import DECISIONS, Endpoint, named
from models.chat.failures import Exhausted
from models.chat.line import Api
from schemas.errors import ModelError, ModelProtocolError, ModelRejected, ModelUnavailable

SECONDS = 5.0
"""For the list, and for the chat request in all its forms."""
_LIMITS: Final[tuple[dict[str, int], ...]] = ({"max_tokens": 1}, {"max_completion_tokens": 16}, {})
"""How the answer is bounded, tried in this order; models/chat/dialect.py has more of how endpoints differ."""
_BAD_REQUEST = (400, 422)
"""The parameters of this one request were not liked, which the transport adapts to for its own."""
_NAMES_TOLD = 5
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Probed:
    """`where` is the endpoint without credentials, `refused` why it will answer nothing, `doubts` what may be wrong."""

    where: str
    refused: str | None = None
    doubts: tuple[str, ...] = ()


async def probe_model(
    base_url: str, api_key: str | None, model: str, *, ask: bool, seconds: float = SECONDS, api: Api = "chat",
    setting: str | None = None,
) -> Probed:  # fmt: skip
    """Look at an endpoint, at most twice `seconds`. With `ask` one request of `api` is sent even where /models is fine.

    `setting` is where the model was configured, if not as the first one: what is to be mended is named as it is there.
    Raises ConfigError for what can not be a URL or a key; whatever the endpoint does is in the result, never the key.
    """
    endpoint = Endpoint(
        base_url, api_key, connections=1, clock=lambda: time.time_ns() // 1_000_000, limit=4 * 1024 * 1024, setting=setting
    )
    found = await _looked(endpoint, model, ask, seconds, api)
    refused = None if found.refused is None else named(found.refused, setting)
    return Probed(found.where, refused, tuple(named(doubt, setting) for doubt in found.doubts))


async def _looked(endpoint: Endpoint, model: str, ask: bool, seconds: float, api: Api) -> Probed:
    try:
        try:
            async with asyncio.timeout(seconds):
                names = _names((await endpoint.models()).body)
        except TimeoutError:
            names, silent = None, True
        except ModelError as error:
            if _no_connection(error):
                return Probed(endpoint.where, _told(error))
            names, silent = None, False
        else:
            silent = False
        doubts = () if names is None or model in names else (_unlisted(model, names),)
        if names is not None and not ask:
            return Probed(endpoint.where, None, doubts)
        return await _asked(endpoint, model, doubts, seconds, silent, api)
    finally:
        await endpoint.close()


async def _asked(endpoint: Endpoint, model: str, doubts: tuple[str, ...], seconds: float, silent: bool, api: Api) -> Probed:
    try:
        async with asyncio.timeout(seconds):
            await (_decided(endpoint, model) if api == "decisions" else _reply(endpoint, model))
    except TimeoutError:
        late = f"no answer within {seconds:g} s"
        if silent:
            return Probed(endpoint.where, f"{late}, of two requests: check HEADRACE_MODEL_BASE_URL")
        return Probed(endpoint.where, None, (*doubts, f"{late}: it is slow, or HEADRACE_MODEL_NAME has to be loaded first"))
    except ModelError as error:
        lasting = isinstance(error, Exhausted | ModelProtocolError) or _no_connection(error)
        if lasting or (isinstance(error, ModelRejected) and error.status not in _BAD_REQUEST):
            return Probed(endpoint.where, _told(error), doubts)
        return Probed(endpoint.where, None, (*doubts, _told(error)))
    return Probed(endpoint.where, None, doubts)


async def _reply(endpoint: Endpoint, model: str) -> None:
    """Ask for a word, bounded as far as the endpoint takes it. Raises ModelError."""
    question = {"model": model, "messages": [{"role": "user", "content": "Reply with the word OK."}]}
    for limit in _LIMITS:
        try:
            read_completion((await endpoint.post(orjson.dumps(question | limit))).body)
        except ModelRejected as error:
            if error.status not in _BAD_REQUEST or limit is _LIMITS[-1]:
                raise
        else:
            return


async def _decided(endpoint: Endpoint, model: str) -> None:
    """Ask one question that is answered in a probability. Raises ModelError."""
    question = {"type": "predicate", "instructions": "Is this a word?"}
    await endpoint.post(orjson.dumps({"model": model, "input": "OK", "questions": [question]}), DECISIONS)


def _no_connection(error: ModelError) -> bool:
    return isinstance(error, ModelUnavailable) and not isinstance(error.__cause__, openai.APIStatusError)


def _told(error: ModelError) -> str:
    """With the setting to mend; a rejection names its own."""
    if isinstance(error, Exhausted):
        return f"{error}: top it up, or set HEADRACE_MODEL_API_KEY to another"
    return str(error) if "HEADRACE_" in str(error) else f"{error}: check HEADRACE_MODEL_BASE_URL"


def _names(body: bytes) -> list[str] | None:
    """The models that are listed; None where this is no such list."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    rows = found.get("data") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        return None
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _unlisted(model: str, names: Sequence[str]) -> str:
    # What an endpoint says is anybody's text: quoted, cut, and not all of it.
    shown = ", ".join(repr(name[:_LONGEST_NAME]) for name in names[:_NAMES_TOLD])
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f"it does not list {model!r}, but {shown or 'nothing'}{more}: check HEADRACE_MODEL_NAME"
