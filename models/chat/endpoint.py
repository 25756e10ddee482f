"""One OpenAI-compatible endpoint: bytes in, bytes out, every failure a ModelError. The only place that sends anything to a model.

The SDK's low-level `post` is used with bytes serialised once: it keeps the SDK's authentication, base URL and error classes at
about a third of the CPU of `chat.completions.create()`. Its retries, redirects and 600 second timeout are off; the caller sets
one total deadline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import httpx2
import openai

from models.chat.failures import TRANSPORT, BodyTooLarge, muted, place, rate_hints
from models.chat.quotes import NOTHING, Quotes
from models.chat.secret import Secret
from schemas.errors import ConfigError, ModelError, ModelProtocolError, ModelRejected

CHAT: Final = "/chat/completions"
DECISIONS: Final = "/decisions"
_NOT_FOUND = 404
_NO_DECISIONS = (
    "the endpoint knows no such model, or has no /decisions: set HEADRACE_MODEL_API to chat, or check HEADRACE_MODEL_NAME and "
    "the path of HEADRACE_MODEL_BASE_URL (404)"
)
_CONNECT_SECONDS = 10.0
_TELLING = (
    "Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async", "Retry-Count", "Read-Timeout",
)  # fmt: skip
_HEADERS: dict[str, str | openai.Omit] = {"Content-Type": "application/json", "Accept-Encoding": "identity"} | {
    f"X-Stainless-{name}": openai.Omit() for name in _TELLING
}
"""What the SDK would tell of this machine is left out: it is nobody's business, and each header costs CPU five times over."""
_FIRST = "headrace_first_ms"

_LARGEST = 8 * 1024 * 1024
_LARGEST_ERROR = 64 * 1024
"""Errors are read in the event loop, and some servers quote the whole request: past this their status alone is heeded."""
_ANY_REPLY, _BYTES_PER_TOKEN = 256 * 1024, 64
_MOST: ContextVar[int] = ContextVar("most_bytes", default=_LARGEST)
"""What the response to the request of this task may have; nothing that the SDK passes on carries it."""


def most_bytes(output_tokens: int, more: int = 0) -> int:
    """The largest response, all of it, to a request that reserved so many tokens: generous, since none can be this long."""
    return min(_LARGEST, _ANY_REPLY + _BYTES_PER_TOKEN * output_tokens + more)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response with status 200. `first_ms` is when its headers came, by the clock given; `headers` those of rate limits."""

    body: bytes
    first_ms: int | None
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal_of(error: ModelError) -> Reply | None:
    """The response with an error's status that `error` was made from; None where there was none."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, httpx2.Response):
        return None
    return Reply(response.content, response.extensions.get(_FIRST), rate_hints(response.headers))


class _Bounded(httpx2.AsyncByteStream):
    """A response body in one piece, with the key hidden. Ends in an error instead of going on past `limit` bytes.

    With `optional` it is empty instead: a piece of it could end within the key.
    """

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int, secret: Secret, *, optional: bool) -> None:
        self._stream = stream
        self._optional = optional
        self._left = limit
        self._secret = secret

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks: list[bytes] = []
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0 and self._optional:
                return
            if self._left < 0:
                raise BodyTooLarge("the response body is larger than the bound")
            chunks.append(chunk)
        yield self._secret.hidden(b"".join(chunks))

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Client(openai.DefaultAioHttpClient):
    """Reads whole bodies, bounded, errors included; never follows a redirect; refuses compressed bodies, which have no bound."""

    def __init__(self, *, limit: int, clock: Callable[[], int], connections: int, secret: Secret) -> None:
        super().__init__(
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self._limit = limit
        self._clock = clock
        self._secret = secret
        self.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def _init_transport(self, *args: Any, **options: Any) -> httpx2.AsyncBaseTransport:
        return _without_cookies(super()._init_transport(*args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx2.AsyncBaseTransport:
        return _without_cookies(super()._init_proxy_transport(*args, **options))

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        options.update(stream=True, follow_redirects=False)
        try:
            response = await super().send(request, **options)
        except aiohttp.ClientError as error:
            # The transport maps most of aiohttp's errors; malformed HTTP is one that it lets through.
            raise httpx2.RemoteProtocolError(type(error).__name__) from error
        response.extensions[_FIRST] = self._clock()
        bad = not response.is_success
        limit = min(self._limit, _LARGEST_ERROR if bad else _MOST.get())
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise httpx2.DecodingError("a compressed body was sent though none was asked for")
            response.stream = _Bounded(cast(httpx2.AsyncByteStream, response.stream), limit, self._secret, optional=bad)
            await response.aread()
            # JSON is UTF-8. A server may name any codec as its charset, even zlib, and decoding by those raises anything at all.
            response.encoding = "utf-8"
        except aiohttp.ClientError as error:
            raise httpx2.ReadError(type(error).__name__) from error
        finally:
            await response.aclose()
        return response


def _without_cookies(transport: Any) -> httpx2.AsyncBaseTransport:
    """The aiohttp transport, with sessions as it makes them but that no cookie is kept: a server must not mark who asks."""

    def session() -> aiohttp.ClientSession:
        limits = transport.limits
        connector = aiohttp.TCPConnector(
            limit=limits.max_connections, keepalive_timeout=limits.keepalive_expiry, ssl=transport.ssl_context
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    transport.client = session
    return cast(httpx2.AsyncBaseTransport, transport)


def without_credentials(base_url: str) -> str:
    """Where an endpoint is, for a person: no user, no password, no query."""
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _check_url(base_url: str) -> None:
    """Raises ConfigError, without the URL: what is in it may be a secret."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("opening the model endpoint: HEADRACE_MODEL_BASE_URL must be like https://host/v1")
    if parts.path.rstrip("/").endswith((CHAT, DECISIONS)):
        raise ConfigError(
            "opening the model endpoint: HEADRACE_MODEL_BASE_URL must be what stands before the path of a request: like "
            "https://host/v1, without /chat/completions"
        )
    if "@" in parts.netloc or "?" in base_url or "#" in base_url:
        # Paths are put after all of it, the client logs a query, and a password stands in the way of the key.
        raise ConfigError(
            "opening the model endpoint: HEADRACE_MODEL_BASE_URL must have no user, password, query or fragment: "
            "put the key into HEADRACE_MODEL_API_KEY"
        )


def named(text: str, setting: str | None) -> str:
    """`text` with the settings of the first model called as they are in `setting`, such as HEADRACE_MODEL_CHEAP."""
    if setting is not None:
        for ours, theirs in (("BASE_URL", "base_url"), ("API_KEY", "api_key"), ("NAME", "name"), ("API", "api")):
            text = text.replace(f"HEADRACE_MODEL_{ours}", f"{theirs} in {setting}")
    return text


class Endpoint:
    """Connections to `base_url`. `where` names it without credentials. Raises ConfigError for what can not be a URL or a key.

    `setting` is where it was configured, if not as the first model: what a person is told to mend is named as it is there.
    """

    def __init__(
        self, base_url: str, api_key: str | None, *, connections: int, clock: Callable[[], int], limit: int = _LARGEST,
        setting: str | None = None,
    ) -> None:  # fmt: skip
        self._setting = setting
        try:
            _check_url(base_url)
            if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key):
                raise ConfigError("opening the model endpoint: HEADRACE_MODEL_API_KEY holds characters that no header carries")
        except ConfigError as error:
            raise ConfigError(named(str(error), setting)) from None
        self.where = without_credentials(base_url)
        self._secret = Secret(api_key)
        # Given explicitly, or the SDK would take OPENAI_API_KEY and send the key of another service here.
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            http_client=_Client(limit=limit, clock=clock, connections=connections, secret=self._secret),
        )
        # These come from the environment too, and no constructor argument says "none".
        self._client.organization = None
        self._client.project = None
        # Paths are told whole: the SDK would parse and merge them anew for each request, a twentieth of what it costs.
        self._base = str(self._client.base_url).rstrip("/")

    async def post(self, body: bytes, path: str = CHAT, *, most: int = _LARGEST, quotes: Quotes = NOTHING) -> Reply:
        """Send one request and read the whole response, of `most` bytes. Raises ModelError; has no deadline of its own.

        `quotes` is what an error may repeat of the request without meaning it.
        """
        sending = self._client.post(self._base + path, cast_to=httpx2.Response, content=body, options={"headers": _HEADERS})
        try:
            return await self._read(sending, most, quotes)
        except ModelRejected as error:
            if error.status == _NOT_FOUND and path == DECISIONS:
                error.args = (named(_NO_DECISIONS, self._setting),)
            raise

    async def models(self) -> Reply:
        """Read the list of models. Raises ModelError; has no deadline of its own."""
        sending = self._client.get(f"{self._base}/models", cast_to=httpx2.Response, options={"headers": _HEADERS})
        return await self._read(sending, _LARGEST)

    async def _read(self, sending: Awaitable[httpx2.Response], most: int, quotes: Quotes = NOTHING) -> Reply:
        _MOST.set(most)
        try:
            response = await sending
        except TRANSPORT as error:
            raise self._placed(error, quotes) from muted(error)
        except Exception as error:  # noqa: BLE001  # whatever a response does to the SDK must not end who asked
            raise ModelProtocolError(f"the request failed in an unforeseen way ({type(error).__name__})") from None
        return Reply(response.content, response.extensions.get(_FIRST), rate_hints(response.headers))

    def _placed(self, error: Exception, quotes: Quotes) -> ModelError:
        """A server may echo the key anywhere, a piece of it even as an error's code."""
        found = place(error, quotes)
        found.args = (self._secret.unnamed(named(str(found), self._setting)),)
        return found

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        await self._client.close()
