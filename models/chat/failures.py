"""Gives every way a request can fail its place in the ModelError tree, in words that say what to do and never hold the key."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import aiohttp
import httpx2
import openai
from openai import _exceptions as sdk

from models.chat.quotes import NOTHING, Quotes
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable

PLACES: dict[type[Exception], type[ModelError]] = {
    openai.APITimeoutError: ModelUnavailable,
    openai.APIConnectionError: ModelUnavailable,
    openai.InternalServerError: ModelUnavailable,
    openai.ConflictError: ModelUnavailable,
    openai.RateLimitError: ModelLimited,
    openai.BadRequestError: ModelRejected,
    openai.AuthenticationError: ModelRejected,
    sdk.OAuthError: ModelRejected,
    openai.PermissionDeniedError: ModelRejected,
    openai.NotFoundError: ModelRejected,
    openai.UnprocessableEntityError: ModelRejected,
    openai.APIStatusError: ModelRejected,  # 408 is looked at by its status; a redirect and any other 4xx stay here
    openai.APIResponseValidationError: ModelProtocolError,
    openai.APIError: ModelProtocolError,
    # The rest belongs to parts of the SDK that the transport does not use; they have a place all the same.
    openai.LengthFinishReasonError: ModelProtocolError,
    openai.ContentFilterFinishReasonError: ModelProtocolError,
    sdk.SubjectTokenProviderError: ModelUnavailable,
    sdk.WebSocketConnectionClosedError: ModelUnavailable,
    sdk.WebSocketQueueFullError: ModelUnavailable,
    sdk.InvalidWebhookSignatureError: ModelProtocolError,
    openai.OpenAIError: ModelProtocolError,
}
"""Class -> place; `place` takes the nearest class up the inheritance line, and the status where there is one."""

TRANSPORT: tuple[type[Exception], ...] = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    aiohttp.ClientError,
    OSError,
    ValueError,
)
"""What a request may raise. The SDK lets some aiohttp and decoding errors through as they are."""

_UNAVAILABLE = (408, 409)
_GAVE_UP = (504, 524)
_ADVICE = {
    401: "the endpoint does not accept the API key: set HEADRACE_MODEL_API_KEY",
    403: "the API key may not use this model: ask its owner for access, or set HEADRACE_MODEL_NAME to one it may use",
    404: "the endpoint knows no such model or path: check HEADRACE_MODEL_NAME and the path of HEADRACE_MODEL_BASE_URL",
}
_ODD = "the endpoint does not accept this request: check that it speaks the API that HEADRACE_MODEL_API names"
_FORBIDDEN = (
    "the endpoint forbids this request and does not say why: a firewall may not like a record's text, or the API key may not use "
    "this model: ask its owner, or set HEADRACE_MODEL_NAME to another"
)
_OUR_CODE = re.compile(r"auth|permission|key|access|denied|credential|organi[sz]ation|project|country|region|model", re.I)
_OUR_TEXT = re.compile(
    r"api[ _-]?key|permission|credential|authenti|authori[sz]|access to|organi[sz]ation|not (?:support|exist|found)", re.I
)
"""What a 400, 403 or 422 says that is about the key or the request's form, and so about every request alike."""
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "Arrearage")
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error", "tokens_too_long", "characters_too_long")
_TOO_LONG_TEXTS = ("context length", "context size", "range of input length", "max_tokens must be at least 1")
_FILTER = ("content_filter", "content_policy_violation", "invalid_prompt", "data_inspection_failed", "DataInspectionFailed")
_FILTER_TEXTS = ("content exists risk", "datainspectionfailed")
LONGEST_TEXT = 2000
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,60}")
_REQUEST_TOO_LARGE = 413


class Unfit(ModelRejected):
    """What was asked about does not fit: fewer records may, and a record that is refused alone is itself the fault."""


class Overflow(Unfit):
    """The request was longer than the model's context, or than the endpoint takes."""


class BadImage(Unfit):
    """The endpoint can not use an image of the request."""


class Filtered(ModelRejected):
    """A content filter refused the request as a whole: one record of it may be the cause."""


class Unexplained(ModelRejected):
    """A 400, 403 or 422 that speaks of no key, permission, model or parameter: a record may be the cause, for a firewall say."""


class Exhausted(ModelLimited):
    """Quota or credit is used up (429, 402, or a code that says so): waiting does not help."""


class BodyTooLarge(httpx2.TransportError):
    """A response went on past the bound that the transport sets."""


def place(error: Exception, quotes: Quotes = NOTHING) -> ModelError:
    """The ModelError that `error` stands for; what its message quotes of the request, by `quotes`, is no sign of anything."""
    if isinstance(error, openai.APIStatusError):
        return _by_status(error, quotes)
    if isinstance(error, openai.APIConnectionError):
        return _by_cause(error.__cause__ or error)
    for known in type(error).__mro__:
        if known in PLACES:
            return _make(PLACES[known], f"the SDK reports {type(error).__name__}")
    return _by_cause(error)


def cut_off(error: BaseException) -> bool:
    """Whether a request was lost on its way: it may have been worked on, and billed, though nothing came back of it.

    A gateway that gave up waiting (504, 524) has passed the request on.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, openai.APIStatusError):
        return cause is not None and cause.status_code in _GAVE_UP
    while cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return False
        cause = cause.__cause__
    return True


def error_body(error: BaseException | None) -> dict[str, Any]:
    """The `error` object of a refused request, or what stands in its place.

    A `detail` counts as its message; of a list of them, as FastAPI sends it, the first one's place counts as its param.
    """
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        return body if "message" in body or "detail" not in body else body | _detail(body["detail"])
    return {"message": body} if isinstance(body, str) else {}


def _detail(detail: Any) -> dict[str, Any]:
    faults = [fault for fault in detail if isinstance(fault, dict)] if isinstance(detail, list) else []
    if not faults:
        return {"message": detail}
    # What is at fault is in `input`, all of the request at times, so only what is said of it is read.
    first = faults[0].get("loc")
    steps = [str(step) for step in first] if isinstance(first, list) else []
    param = ".".join(steps[1:] if steps[:1] == ["body"] else steps)
    return {"message": "; ".join(str(fault.get("msg", "")) for fault in faults), "param": param or None}


def muted(error: Exception) -> Exception:
    """The same error whose text is its status alone: what a server wrote may quote the key, and texts end in tracebacks."""
    if isinstance(error, openai.APIStatusError):
        error.message = f"status {error.status_code}"
        error.args = (error.message,)
    return error


def rate_headers(error: BaseException | None) -> dict[str, str]:
    """The `x-ratelimit-*` headers of the response that an SDK error came from; none where there was no response."""
    response = getattr(error, "response", None)
    return rate_hints(response.headers) if isinstance(response, httpx2.Response) else {}


def rate_hints(headers: httpx2.Headers) -> dict[str, str]:
    """The headers of a response that speak of rate limits, names in lower case."""
    return {name: value for name, value in headers.items() if name.startswith("x-ratelimit-")}


def _make(kind: type[ModelError], message: str, status: int = 0) -> ModelError:
    return ModelRejected(message, status=status) if kind is ModelRejected else kind(message)


def _by_cause(cause: BaseException) -> ModelError:
    if isinstance(cause, BodyTooLarge):
        return ModelProtocolError("the response is larger than the transport accepts")
    if isinstance(cause, ValueError):
        return ModelProtocolError(f"the response could not be read ({type(cause).__name__})")
    # httpx2 names a refused connection a ConnectTimeout under aiohttp; the first cause says what it was.
    first = cause
    while first.__cause__ is not None:
        first = first.__cause__
    return ModelUnavailable(f"no answer over this connection ({type(first).__name__})")


def _by_status(error: openai.APIStatusError, quotes: Quotes) -> ModelError:
    status, body = error.status_code, error_body(error)
    words = [word for word in (body.get("code"), body.get("type")) if isinstance(word, str)]
    if status == 402 or any(word in _QUOTA for word in words):
        return Exhausted(f"quota or credit of this API key is used up ({status})")
    if status == 429:
        return ModelLimited("the endpoint limits the rate of requests (429)", retry_after=retry_after(error.response.headers))
    unfit = _unfit(status, body, words)
    if unfit is not None:
        return unfit
    if status >= 500 or status in _UNAVAILABLE:
        return ModelUnavailable(f"the endpoint is not available ({status})")
    if 300 <= status < 400:
        advice = "prompts follow no redirect: set HEADRACE_MODEL_BASE_URL to the place itself"
        return ModelRejected(f"the endpoint redirects ({status}); {advice}", status=status)
    if _unexplained(error, body, words, quotes):
        advice = _FORBIDDEN if status == 403 else _ODD
        return Unexplained(f"{advice} ({status}{_short(body)})", status=status)
    advice = _ADVICE.get(status, _ODD)
    return ModelRejected(f"{advice} ({status}{_short(body)})", status=status)


def _unexplained(error: openai.APIStatusError, body: dict[str, Any], words: list[str], quotes: Quotes) -> bool:
    if error.status_code not in (400, 403, 422):
        return False
    param = body.get("param")
    if about_records(param):
        return not any(map(_OUR_CODE.search, words))
    ours = isinstance(param, str) and param != ""
    # A firewall's web page may say "permission" too: only an API's own error is taken at its word.
    said = str(body.get("message", ""))[:LONGEST_TEXT] if isinstance(error.body, dict) else ""
    return not (ours or any(map(_OUR_CODE.search, words)) or _says(_OUR_TEXT, said, quotes))


def _says(signs: re.Pattern[str], message: str, quotes: Quotes) -> bool:
    """Whether a sign is the endpoint's own word. One that a record has too is none: halves find out, and cost little."""
    return signs.search(message) is not None and signs.search(quotes.unsaid(quotes.unquoted(message), signs)) is not None


def about_records(param: object) -> bool:
    """Whether an error's `param` says that it is about what the request is about, and not about how it is asked."""
    return isinstance(param, str) and param.startswith(("messages", "input"))


def _unfit(status: int, body: dict[str, Any], words: list[str]) -> ModelRejected | None:
    """What is refused for what is in the request, where the server says so, in any of the ways in which servers say it."""
    text = str(body.get("message", ""))[:LONGEST_TEXT].lower()
    bad_request = status in (400, 422)
    # Some builds of llama.cpp send this one with a 500: its name is clear enough.
    too_long = any(word in _TOO_LONG for word in words) or (bad_request and any(said in text for said in _TOO_LONG_TEXTS))
    if too_long or status == _REQUEST_TOO_LARGE:
        return Overflow(f"the request is longer than the model's context ({status}): use a smaller batch", status=status)
    unsafe = any(word in _FILTER or word.endswith("_unsafe") for word in words)
    if unsafe or (bad_request and any(said in text for said in _FILTER_TEXTS)):
        return Filtered(f"the endpoint's content filter refused the request ({status})", status=status)
    if bad_request and any("image" in word.lower() for word in words):
        return BadImage(f"the endpoint can not use an image of the request ({status}{_short(body)})", status=status)
    return None


def _short(body: dict[str, Any]) -> str:
    """The machine-readable part of an error; its message may quote the prompt or the key, so it stays out."""
    said = [str(body.get(name)) for name in ("code", "param") if body.get(name)]
    return "".join(f", {word}" for word in said if _WORD.fullmatch(word))


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait as the server asks for: `retry-after-ms`, `retry-after` in seconds or as a date.

    None without, and where it asks for no wait at all: some deployments send 0 with every 429, or a date that is past.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 < seconds < 86_400:
            return seconds
    try:
        left = parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time()
    except (ValueError, TypeError, OverflowError):
        return None
    return left if left > 0 else None
