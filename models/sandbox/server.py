"""The sandbox: an OpenAI-compatible server that scores the features in the prompt with its own transparent rules.

It speaks chat completions (json_schema, json_object, plain), decisions and the model list, counts usage, sends rate-limit
headers, and has the latency, limits and faults that it is told to have. It is no model, and says so in every answer's model
name. It logs nothing, so no prompt ends in a log. For development, demos and tests: it listens on loopback unless told otherwise.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

from models.sandbox.account import Account, AccountLimits
from models.sandbox.decisions import DECISION_FAULTS, BadDecision, decided, decision, decision_body, read_wanted
from models.sandbox.faults import ANSWER_FAULTS, COMPLETION_FAULTS, REFUSAL_FAULTS, STATUS_FAULTS, TEXT_FAULTS, FaultPlan
from models.sandbox.fill import fill, inlined
from models.sandbox.limits import latency
from models.sandbox.message import IMAGE_TOKENS, read_content, without_images
from models.sandbox.moderation import moderation
from models.sandbox.position import PositionNoise
from models.sandbox.profiles import Refusal, profile
from models.sandbox.prompt_cache import PromptCache
from models.sandbox.rules import RULES
from models.sandbox.schedule import Outage, Schedule
from models.sandbox.timeline import Timeline
from schemas.errors import ConfigError

MODEL = "sandbox/transparent-rules"
_MOST_BODY = 16 * 1024 * 1024
_LONGEST = 86_400.0
_PLAIN_SCHEMA = re.compile(r"JSON Schema \(([A-Za-z0-9_-]+)\): (\{.*\})\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SandboxConfig(AccountLimits):
    """How the sandbox behaves, its limits included (models/sandbox/account.py).

    `latency` as models.sandbox.limits.latency reads it. `changes` and `outages` say what happens when, in seconds since the start
    (models/sandbox/schedule.py). `schedule` names the faults of the first requests ("" for none), `faults` the
    probability of each for all others (names in models.sandbox.faults). `rejects` are request parameters answered with
    a 400, as by servers that do not know them: json_schema, json_object, max_tokens, max_completion_tokens, temperature.
    With `position_noise` answers get worse down a batch, with `prompt_cache` the beginning of a prompt that came before counts as
    cached input.
    `profile` is the server to imitate in what it refuses and how (models/sandbox/profiles.py). Past `context` input tokens a
    request is refused, or where `cuts` says so (None: as the profile does) answered for the last records that fit. A record in
    whose features the word `poison` stands has its whole request refused by a content filter (400), or with `poison_refusal` by
    the model.
    """

    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = field(default=None, repr=False)
    latency: str = "0ms"
    changes: tuple[tuple[float, float], ...] = ()
    outages: tuple[Outage, ...] = ()
    faults: Mapping[str, float] = field(default_factory=dict)
    schedule: tuple[str, ...] = ()
    rejects: frozenset[str] = frozenset()
    seed: int = 0
    position_noise: PositionNoise | None = None
    prompt_cache: bool = False
    profile: str = ""
    context: int | None = None
    cuts: bool | None = None
    poison: str | None = None
    poison_refusal: bool = False


@dataclass(slots=True)
class Meter:
    """What the sandbox has seen since it started, by its own count. `out` are requests that came while it was out.

    `timeline` counts "came", "admitted" and "answered".
    """

    requests: int = 0
    completions: int = 0
    records: int = 0
    limited: int = 0
    out: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    timeline: Timeline = field(default_factory=Timeline)

    def as_json(self) -> dict[str, Any]:
        """The body of GET /sandbox/meter."""
        return {
            "requests": self.requests,
            "completions": self.completions,
            "records": self.records,
            "limited": self.limited,
            "out": self.out,
            "most_in_flight": self.most_in_flight,
            "tokens": {"input": self.input_tokens, "cached": self.cached_tokens, "output": self.output_tokens},
            "faults": dict(self.faults),
            "timeline": self.timeline.as_json(),
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    """A chat request, read. `records` is None where the user message is not in the layout of models.chat.prompt."""

    text: str
    schema: Mapping[str, Any] | None
    schema_name: str
    records: list[dict[str, Any]] | None
    limit: int | None
    request: Mapping[str, Any]


class Sandbox:
    """`async with Sandbox(config) as sandbox: sandbox.base_url`. Raises ConfigError for a config that can not work.

    `clock` in seconds is what limits and outages go by.
    """

    def __init__(self, config: SandboxConfig | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config or SandboxConfig()
        self.meter = Meter()
        chance = random.Random(self.config.seed)  # noqa: S311  # repeatable on purpose: faults and latency of a test run
        self._faults = FaultPlan(self.config.schedule, self.config.faults, chance)
        self._profile = profile(self.config.profile)
        self._latency = latency(self.config.latency, chance)
        self._schedule = Schedule(self.config.changes, self.config.outages)
        self.account = Account(self.config, self._schedule, clock, random.Random(self.config.seed))  # noqa: S311  # the same
        self._prompts = PromptCache() if self.config.prompt_cache else None
        self._closing = asyncio.Event()
        self._absences: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL, e.g. http://127.0.0.1:40123/v1."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self._port}/v1"

    async def start(self) -> None:
        """Listen. Raises ConfigError if the address can not be bound."""
        app = web.Application(client_max_size=_MOST_BODY)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/decisions", self._decisions)
        app.router.add_post("/v1/moderations", moderation(self._denied))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/sandbox/meter", self._read_meter)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        try:
            await site.start()
        except OSError as error:
            await self.close()
            raise ConfigError(f"starting the sandbox on {self.config.host}:{self.config.port}: {error.strerror}") from None
        self._port = int(self._runner.addresses[0][1])
        if any(outage.kind == "refused" for outage in self.config.outages):
            self._absences = asyncio.create_task(self._be_absent(site))

    async def close(self) -> None:
        """Stop listening and let go of requests that hang. Safe to call twice."""
        self._closing.set()
        if self._absences is not None:
            self._absences.cancel()
            await asyncio.gather(self._absences, return_exceptions=True)
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def __aenter__(self) -> Sandbox:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "headrace-sandbox"}
        return self._denied(request) or _json({"object": "list", "data": [model]})

    async def _read_meter(self, _request: web.Request) -> web.Response:
        return _json(self.meter.as_json() | {"limits": self.account.as_json()})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, self._answer)

    async def _decisions(self, request: web.Request) -> web.StreamResponse:
        return await self._counted(request, self._decide)

    async def _counted(
        self, request: web.Request, answer: Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        meter = self.meter
        meter.requests += 1
        meter.in_flight += 1
        meter.most_in_flight = max(meter.most_in_flight, meter.in_flight)
        meter.timeline.add("came", self.account.second)
        try:
            outage = self._schedule.outage(self.account.second)
            if outage is not None:
                return await self._out(request, outage)
            body = await request.read()
            return self._denied(request) or await answer(request, body)
        finally:
            meter.in_flight -= 1

    async def _out(self, request: web.Request, outage: Outage) -> web.StreamResponse:
        self.meter.out += 1
        if outage.kind == "503":
            return _error(503, "this sandbox is out, as it was told to be")
        if outage.kind == "hang":
            await self._pause(min(_LONGEST, outage.end - self.account.second))
        return _reset(request)

    async def _be_absent(self, site: web.TCPSite) -> None:
        """Do not listen while connections are to be refused."""
        for outage in self.config.outages:
            if outage.kind == "refused":
                await self._pause(outage.begin - self.account.second)
                await site.stop()
                await self._pause(min(_LONGEST, outage.end - self.account.second))
                assert self._runner is not None
                site = web.TCPSite(self._runner, self.config.host, self._port)
                await site.start()

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        input_tokens = _input_tokens(body)
        limited = self._limited(input_tokens, _output_limit(body) if self.config.charges == "reserved" else 0)
        if limited is not None:
            return limited
        headers = self.account.headers()
        try:
            asked = self._take(_read(body, self.config.rejects), input_tokens)
        except _Refuse as problem:
            return _json(self._profile.body(problem.refusal), status=problem.refusal.status, headers=headers)
        fault = self._faults.next()
        if fault:
            self.meter.faults[fault] += 1
        await self._pause(self._latency())
        if fault in STATUS_FAULTS:
            return _status_fault(int(fault), headers)
        if fault in REFUSAL_FAULTS:
            return _refusal_fault(fault, request, headers)
        try:
            text, finish, refusal = _completion_text(asked, "refusal" if self._refuses(asked) else fault)
        except Exception as error:  # noqa: BLE001  # a rule is somebody's code: its defect is told to the client, by type only
            return _error(500, f"the rule for {asked.schema_name} failed with {type(error).__name__}", headers=headers)
        if self.config.position_noise is not None:
            text = self.config.position_noise.told(text, asked.schema, [record["features"] for record in asked.records or ()])
        output_tokens = _tokens(text.encode())
        self.account.used(output_tokens)
        self.meter.timeline.add("answered", self.account.second)
        self.meter.completions += 1
        self.meter.records += len(asked.records or ())
        self.meter.input_tokens += input_tokens
        self.meter.output_tokens += output_tokens
        completion = self._profile.adds(_completion(text, finish, refusal, input_tokens, output_tokens, self.meter.completions))
        if self._prompts is not None:
            self.meter.cached_tokens += self._prompts.tell(completion, body)
        if fault in COMPLETION_FAULTS:
            completion = COMPLETION_FAULTS[fault](completion)
        return await self._send(request, orjson.dumps(completion), fault, headers)

    async def _decide(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """The same for questions that are answered in probabilities."""
        config, meter, input_tokens = self.config, self.meter, _input_tokens(body)
        limited = self._limited(input_tokens, 0)
        if limited is not None:
            return limited
        headers = self.account.headers()
        try:
            wanted = read_wanted(body)
        except BadDecision as problem:
            return _error(400, str(problem), code="invalid_request", param=problem.param, headers=headers)
        if config.context is not None and input_tokens > config.context:
            refusal = self._profile.overflow(input_tokens, config.context)
            return _json(self._profile.body(refusal), status=refusal.status, headers=headers)
        poison = config.poison
        poisoned = [one for one in wanted.records.values() if poison is not None and poison in str(one)]
        if poisoned and not config.poison_refusal and (filtered := self._profile.filtered) is not None:
            return _json(self._profile.body(filtered), status=filtered.status, headers=headers)
        fault = self._faults.next()
        if fault:
            meter.faults[fault] += 1
        await self._pause(self._latency())
        if fault in STATUS_FAULTS:
            return _status_fault(int(fault), headers)
        if fault in REFUSAL_FAULTS:
            return _refusal_fault(fault, request, headers)
        try:
            answers = decided(wanted, lambda features: features in poisoned)
        except Exception as error:  # noqa: BLE001  # a rule is somebody's code
            return _error(500, f"the rule for {wanted.answers} failed with {type(error).__name__}", headers=headers)
        if fault in DECISION_FAULTS:
            answers = DECISION_FAULTS[fault](answers)
        output_tokens = _tokens(orjson.dumps(answers))
        self.account.used(output_tokens)
        meter.timeline.add("answered", self.account.second)
        meter.completions += 1
        meter.records += len(wanted.records)
        meter.input_tokens += input_tokens
        meter.output_tokens += output_tokens
        reply = decision(answers, MODEL, input_tokens, output_tokens)
        return await self._send(request, decision_body(reply, fault), fault, headers)

    def _take(self, asked: _Asked, tokens: int) -> _Asked:
        """What is answered of a request. Raises _Refuse for what the profile, the context or the filter does not let pass."""
        config, known = self.config, self._profile
        refusal = known.refuses(asked.request)
        if refusal is not None:
            raise _Refuse(refusal)
        if config.context is not None and tokens > config.context:
            if not (known.cuts if config.cuts is None else config.cuts):
                raise _Refuse(known.overflow(tokens, config.context))
            asked = replace(asked, records=_cut(asked.records, tokens - config.context))
        if known.filtered is not None and not config.poison_refusal and self._poisoned(asked):
            raise _Refuse(known.filtered)
        return asked

    def _poisoned(self, asked: _Asked) -> bool:
        return self.config.poison is not None and any(self.config.poison in str(one["features"]) for one in asked.records or ())

    def _refuses(self, asked: _Asked) -> bool:
        return self.config.poison_refusal and self._poisoned(asked)

    async def _send(self, request: web.Request, body: bytes, fault: str, headers: dict[str, str]) -> web.StreamResponse:
        """The completion, or what a transport fault makes of it."""
        if fault == "hang":
            await self._pause(3600)
        elif fault in ("drip", "stall", "reset-body"):
            return await self._drip(request, body, fault)
        elif fault == "reset":
            return _reset(request)
        elif fault == "html":
            return web.Response(text="<html><body>Sign in to this network</body></html>", content_type="text/html")
        elif fault == "gzip":
            return web.Response(body=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")
        elif fault == "huge":
            body = b" " * _MOST_BODY  # made here alone: for each answer it would cost more than the answer
        elif fault in ("empty", "truncated"):
            body = b"{}" if fault == "empty" else body[: len(body) // 2]
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _drip(self, request: web.Request, body: bytes, fault: str) -> web.StreamResponse:
        """A byte every 50 ms: each read succeeds, the whole never comes in time. Or half at once, and then nothing or the end."""
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(request)
        if fault != "drip":
            await response.write(body[: len(body) // 2])
            await self._pause(3600 if fault == "stall" else 0.01)
            if request.transport is not None:
                request.transport.abort()
            return response
        for byte in body:
            if self._closing.is_set():
                break
            await response.write(bytes((byte,)))
            await self._pause(0.05)
        return response

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past closing."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._closing.wait()
            except TimeoutError:
                pass

    def _denied(self, request: web.Request) -> web.Response | None:
        key = self.config.api_key
        given = request.headers.get("Authorization", "").encode()
        if key is None or hmac.compare_digest(given, f"Bearer {key}".encode()):
            return None
        return _error(401, "this sandbox was started with an API key, and this is not it", code="invalid_api_key")

    def _limited(self, input_tokens: int, output_limit: int) -> web.Response | None:
        """A 429 where a limit is reached; else the cost is taken."""
        account = self.account
        wait = account.admit(input_tokens, output_limit)
        if wait <= 0:
            self.meter.timeline.add("admitted", account.second)
            return None
        self.meter.limited += 1
        return _error(429, "rate limit reached", code="rate_limit_exceeded", headers=account.hints(wait) | account.headers())


def _output_limit(body: bytes) -> int:
    """The tokens that the answer may have; none where the body says nothing readable of it."""
    try:
        request = orjson.loads(body)
        limit = request.get("max_completion_tokens", request.get("max_tokens"))
    except (orjson.JSONDecodeError, AttributeError):
        return 0
    return limit if isinstance(limit, int) and limit > 0 else 0


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # goes nowhere: the connection is gone


class _Refuse(Exception):
    """A request that an OpenAI-compatible server would answer with an error."""

    def __init__(self, refusal: Refusal | str, param: str | None = None) -> None:
        self.refusal = refusal if isinstance(refusal, Refusal) else Refusal(refusal, param=param)
        super().__init__(self.refusal.message)


def _read(body: bytes, rejects: frozenset[str]) -> _Asked:
    try:
        request = orjson.loads(body)
        said = [read_content(message["role"], message["content"]) for message in request["messages"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise _Refuse("the body is not a chat request") from None
    messages = [message for message in said if message is not None]
    if not messages or len(messages) < len(said):
        raise _Refuse("messages must have text, or parts with text and images as data: URLs", "messages")
    for name in ("max_tokens", "max_completion_tokens", "temperature"):
        if name in rejects and name in request:
            raise _Refuse(f"Unsupported parameter: {name!r} is not supported with this model.", name)
    response_format = request.get("response_format") or {}
    kind = response_format.get("type", "text")
    if kind in rejects:
        raise _Refuse(f"response_format {kind} is not supported", "response_format")
    name, schema = "", None
    if kind == "json_schema":
        declared = response_format.get("json_schema") or {}
        name, schema = str(declared.get("name", "")), declared.get("schema")
        if not isinstance(schema, dict):
            raise _Refuse("response_format.json_schema has no schema", "response_format")
        schema = inlined(schema)
    elif found := _PLAIN_SCHEMA.search(messages[0].text):
        name, schema = found[1], orjson.loads(found[2])
    limit = request.get("max_completion_tokens", request.get("max_tokens"))
    last = messages[-1]
    records = _records(last.text)
    if records is not None and last.images:
        records = [{**record, "features": last.shown(record["features"])} for record in records]
    return _Asked(last.text, schema, name, records, limit if isinstance(limit, int) else None, request)


def _records(text: str) -> list[dict[str, Any]] | None:
    """The records of a user message as models.chat.prompt lays it out."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    records = message.get("records") if isinstance(message, dict) else None
    if not isinstance(records, list):
        return None
    whole = all(isinstance(record, dict) and isinstance(record.get("features"), dict) and "id" in record for record in records)
    return records if whole else None


def _completion_text(asked: _Asked, fault: str) -> tuple[str, str, str | None]:
    """Content, finish reason and refusal."""
    if fault in ("refusal", "content_filter"):
        return ("", "stop", "I can not help with this.") if fault == "refusal" else ("", "content_filter", None)
    if asked.schema is None:
        text = "This is a sandbox: it scores records and holds no conversation."
    elif asked.records is None:
        text = orjson.dumps(fill(asked.schema, asked.text)).decode()
    else:
        answers = [{"id": record["id"], **_score(asked, record["features"])} for record in asked.records]
        if fault in ANSWER_FAULTS and answers:
            answers = ANSWER_FAULTS[fault](answers)
        text = orjson.dumps({"answers": answers}).decode()
    if fault in TEXT_FAULTS:
        text = TEXT_FAULTS[fault](text)
    finish = "stop"
    if fault == "length":
        text, finish = text[: len(text) // 2], "length"
    elif asked.limit is not None and _tokens(text.encode()) > asked.limit:
        text, finish = text[: asked.limit * 4], "length"
    return text, finish, None


def _score(asked: _Asked, features: Mapping[str, Any]) -> dict[str, Any]:
    """The answer about one record: its rule's, or a stable one that means nothing."""
    rule = RULES.get(asked.schema_name)
    if rule is not None:
        return rule(features)
    assert asked.schema is not None
    item = asked.schema["properties"]["answers"]["items"]
    filled: dict[str, Any] = fill({**item, "properties": {k: v for k, v in item["properties"].items() if k != "id"}}, features)
    return filled


def _completion(
    text: str, finish: str, refusal: str | None, input_tokens: int, output_tokens: int, number: int
) -> dict[str, Any]:
    message = {"role": "assistant", "content": text if refusal is None else None, "refusal": refusal}
    return {
        "id": f"chatcmpl-sandbox-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def _tokens(data: bytes) -> int:
    """Four bytes to a token: no tokenizer's count, but the same for the same bytes."""
    return -(-len(data) // 4)


def _input_tokens(body: bytes) -> int:
    """Of a request: an image has as many tokens as any other, whatever its bytes."""
    text, images = without_images(body)
    return _tokens(text) + images * IMAGE_TOKENS


def _cut(records: list[dict[str, Any]] | None, excess: int) -> list[dict[str, Any]] | None:
    """The last records that are left when so many tokens are cut from the front, as servers do that keep the newest."""
    left = list(records or ())
    while left and excess > 0:
        excess -= _tokens(orjson.dumps(left.pop(0)))
    return left if records is not None else None


def _refusal_fault(fault: str, request: web.Request, headers: dict[str, str]) -> web.Response:
    status, code = REFUSAL_FAULTS[fault]
    said = f"Incorrect API key provided: {request.headers.get('Authorization', '').removeprefix('Bearer ')}"
    said = said if fault == "echo" else "a fault that the sandbox was told to inject"
    response = _error(status, said, code=code, headers=headers)
    if fault == "charset":
        response.headers["Content-Type"] = "application/json; charset=zlib"
    return response


def _status_fault(status: int, headers: dict[str, str]) -> web.Response:
    if status == 307:
        # To a port where nobody listens: whoever follows it shows up as a connection error.
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/v1/chat/completions"})
    hints = {"Retry-After": "1", "Retry-After-Ms": "100"} if status == 429 else {}
    return _error(status, "a fault that the sandbox was told to inject", headers=headers | hints)


def _error(
    status: int, message: str, *, code: str | None = None, param: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": {"message": message, "type": "sandbox_error", "param": param, "code": code}}
    return _json(body, status=status, headers=headers)


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)


