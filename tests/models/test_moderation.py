"""Moderation before a model: what is flagged is not asked, and what nothing is known of is not either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agents.engine.log_repeats import Repeats
from agents.engine.model_watch import ModelWatch, Watched
from models.chat.endpoint import Endpoint
from models.contract import Paced, Question
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker import IN_A_ROW
from models.gates.breaker_gate import BreakerGate
from models.gates.retry_budget import RetryBudget
from models.guardrails.moderation import SAID, Moderated, Said, chunks, read_moderation
from models.masking.mask import mask_of
from models.masking.redact import Redact
from models.masking.scrub import Scrubber
from models.routing.cascade import Cascade, Tier
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.errors import ModelProtocolError
from schemas.marks import Untrusted
from tests.models.test_failover import Says
from tests.models.test_passage import Recorder
from tests.support.scoring import Judged, soon, statuses, wrongly


class Note(BaseModel):
    text: Annotated[str, Untrusted(max=80)]


def notes(*texts: str) -> list[Question]:
    return [Question(f"d{at}", Note(text=text)) for at, text in enumerate(texts)]


def endpoint(base_url: str, key: str | None = None) -> Endpoint:
    return Endpoint(base_url, key, connections=4, clock=lambda: 0)


Handler = Callable[[web.Request], Any]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server whose every path is answered by `handler`."""
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def test_what_is_flagged_is_refused_and_not_asked() -> None:
    """The categories are told; the others are asked together, and answers are in the order of the questions."""
    says = Says("m", "answered")
    async with Sandbox() as server:
        moderated = Moderated(says, endpoint(server.base_url))
        answers = await moderated.score(notes("a", "sandbox-flag:violence", "", "sandbox-flag sandbox-flag:hate"), soon(20))
        await moderated.close()
    assert statuses(answers) == ["answered", "refused", "answered", "refused"]
    assert [answer.why for answer in answers] == ["", "moderation: violence", "", "moderation: hate, sandbox"]
    assert says.asked == [["d0", "d2"]]
    assert (moderated.flagged, moderated.unanswered) == (2, 0)


async def test_moderation_sees_masked_texts_in_one_request() -> None:
    """Inside a Redact it is shown placeholders; a record without text is not sent at all; the model is named where one is."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json()))
        return web.json_response({"results": [{"flagged": False, "categories": {}}] * len(seen[-1][1]["input"])})

    says = Says("m", "answered")
    mask = mask_of(Note, Scrubber(), None)
    assert mask is not None
    async with serving(handler) as base_url:
        redact = Redact(Moderated(says, endpoint(base_url), model="omni"), mask)
        answers = await redact.score(notes("I am a@b.example", " ", "b"), soon(20))
        await redact.close()
    assert statuses(answers) == ["answered"] * 3
    assert seen == [("/v1/moderations", {"model": "omni", "input": ["I am [EMAIL_1]", "b"]})]


async def test_without_texts_nothing_is_asked_of_moderation() -> None:
    """It costs nothing where there is nothing to moderate."""
    says = Says("m", "answered")
    moderated = Moderated(says, endpoint("http://127.0.0.1:9/v1"))
    assert statuses(await moderated.score(notes("", " "), soon(5))) == ["answered"] * 2
    assert await moderated.score([], soon(5)) == []
    assert says.asked == [["d0", "d1"]]
    await moderated.close()


async def test_moderation_that_hangs_waves_nothing_through_and_leaves_time() -> None:
    """It has a third of the time; then its records are "unavailable", and those without text are asked all the same."""

    async def handler(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    says = Says("m", "answered")
    async with serving(handler) as base_url:
        moderated = Moderated(says, endpoint(base_url))
        answers = await moderated.score(notes("a", "", "b"), soon(1.5))
        await moderated.close()
    assert statuses(answers) == ["unavailable", "answered", "unavailable"]
    assert answers[0].why == "moderation: it did not answer in its part of the time: check HEADRACE_MODERATION"
    assert says.asked == [["d1"]]
    assert says.until[0] > 0.5
    assert moderated.unanswered == 2


def _results(*results: Any) -> dict[str, Any]:
    return {"results": list(results)}


FINE = {"flagged": False, "categories": {}}


@pytest.mark.parametrize(
    "body",
    [{}, [], {"results": None}, _results(), _results(FINE, FINE, FINE), _results(FINE, {}), _results(FINE, None),
     _results(FINE, {"flagged": 0}), _results(FINE, {"flagged": "false", "categories": {}}),
     _results(FINE, {"flagged": True, "categories": ["hate"]})],
)  # fmt: skip
async def test_a_reply_that_is_not_one_result_for_each_text_lets_nothing_through(body: Any) -> None:
    """Whatever is missing or of another type, no record is asked of the model."""
    says = Says("m", "answered")

    async def handler(_: web.Request) -> web.Response:
        return web.json_response(body)

    async with serving(handler) as base_url:
        moderated = Moderated(says, endpoint(base_url))
        answers = await moderated.score(notes("a", "b"), soon(20))
        await moderated.close()
    assert statuses(answers) == ["unavailable"] * 2
    assert not says.asked


RESULTS = st.recursive(st.none() | st.booleans() | st.text(), st.lists)


@given(st.binary() | RESULTS.map(lambda value: orjson.dumps({"results": value})))
def test_no_body_is_read_as_permission(body: bytes) -> None:
    """Anything but results is a ModelProtocolError."""
    with pytest.raises(ModelProtocolError):
        read_moderation(body, 1)


@pytest.mark.parametrize("reply", [web.Response, None])
async def test_a_text_that_is_refused_costs_its_own_record_only(reply: Any) -> None:
    """A request with it is asked again in halves, whether it is answered by a 400 or by something that can not be read."""
    seen: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        seen.append(len(texts))
        if "bad" in texts:
            return web.Response(status=400, text="{}") if reply else web.json_response({"results": []})
        return web.json_response({"results": [FINE] * len(texts)})

    says = Says("m", "answered")
    async with serving(handler) as base_url:
        moderated = Moderated(says, endpoint(base_url))
        answers = await moderated.score(notes(*("bad" if at == 5 else f"text {at}" for at in range(16))), soon(20))
        await moderated.close()
    assert statuses(answers) == [("rejected" if reply else "unavailable") if at == 5 else "answered" for at in range(16)]
    assert len(seen) == 9
    assert (moderated.unanswered, len(says.asked[0])) == (1, 15)


async def test_an_endpoint_that_takes_one_text_at_a_time_is_asked_so() -> None:
    """One result for two texts says nothing of either; one for each does."""

    async def handler(request: web.Request) -> web.Response:
        flagged = (await request.json())["input"][0] == "b"
        return web.json_response({"results": [{"flagged": flagged, "categories": {}}]})

    async with serving(handler) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url))
        said = statuses(await moderated.score(notes("a", "b", *"acacacacac"), soon(20)))
        assert said == ["answered", "refused"] + ["answered"] * 10
        await moderated.close()


MODEL_GONE = {"error": {"message": "no such model", "code": "model_not_found", "param": "model"}}


@pytest.mark.parametrize(
    ("status", "body", "most"), [(401, {}, 1), (400, MODEL_GONE, 1), (400, {}, 4), (403, {}, 4), (422, {}, 4)]
)
async def test_what_is_no_texts_fault_is_no_reason_to_ask_in_halves(status: int, body: Any, most: int) -> None:
    """One request is enough to know it of a key or a model, four where no reason is given: whole, halves and one alone."""
    seen: list[int] = []
    async with serving(always(status, body, seen)) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url))
        assert statuses(await moderated.score(notes(*"abcdefghijklmnop"), soon(20))) == ["rejected"] * 16
        assert (moderated.unanswered, moderated.flagged) == (16, 0)
        await moderated.close()
    assert len(seen) == most


async def test_what_an_error_quotes_of_a_text_is_no_sign_of_a_wrong_key() -> None:
    """A text that speaks of a key, quoted by an endpoint that does not like it, costs its own record only."""
    text, breaker = "POISON my api key is not working", BreakerGate("there")

    async def handler(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        if text in texts:
            return web.json_response({"error": {"message": f"text forbidden by policy: {text}"}}, status=403)
        return web.json_response(_results(*[FINE] * len(texts)))

    async with serving(handler) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url), gates=(breaker,))
        assert statuses(await moderated.score(notes(*"abc", text, *"defg"), soon(20))) == ["answered"] * 3 + ["rejected"] + [
            "answered"
        ] * 4
        await moderated.close()
    assert breaker.closed()


async def test_two_batches_with_a_forbidden_text_each_cost_their_own_record_only() -> None:
    """At once, and though the firewall is quicker than the endpoint behind it."""
    breaker = BreakerGate("there")

    async def handler(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        if "POISON" in texts:
            return web.Response(status=403, text="<html>Forbidden</html>", content_type="text/html")
        await asyncio.sleep(0.05)
        return web.json_response(_results(*[FINE] * len(texts)))

    async with serving(handler) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url), gates=(breaker,))
        batches = [[Question(f"{b}-{n}", Note(text="fine" if n else "POISON")) for n in range(16)] for b in range(8)]
        for answers in await asyncio.gather(*(moderated.score(batch, soon(20)) for batch in batches)):
            assert statuses(answers) == ["rejected"] + ["answered"] * 15
        await moderated.close()
    assert (breaker.closed(), breaker.stats.opened) == (True, 0)


async def test_many_texts_are_several_requests() -> None:
    """At most 32 in one, and answers in the order of the questions."""
    seen: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        seen.append(len(texts))
        return web.json_response({"results": [{"flagged": text == "40", "categories": {}} for text in texts]})

    async with serving(handler) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url))
        answers = await moderated.score(notes(*map(str, range(70))), soon(20))
        await moderated.close()
    assert [at for at, answer in enumerate(answers) if answer.status == "refused"] == [40]
    assert seen == [32, 32, 6]


@given(st.lists(st.integers(0, 130_000).map("é".__mul__) | st.just("x"), max_size=80))
def test_a_request_has_so_many_texts_and_bytes_at_most(texts: list[str]) -> None:
    """One text that is longer goes alone; none is lost."""
    pieces = [[one.text for one in piece] for piece in chunks([Said(text) for text in texts])]
    assert [text for piece in pieces for text in piece] == texts
    for piece in pieces:
        assert 1 <= len(piece) <= 32
        assert len(piece) == 1 or sum(len(text.encode()) for text in piece) <= 100_000


def test_a_category_that_is_no_name_is_not_told() -> None:
    """It would go into logs and audits as it is."""
    names = {"hate/threatening": True, "self-harm": True, "\x1b[2J\n\u202eEVIL jane@bank.com": True, "x" * 41: True, "no": False}
    body = orjson.dumps({"results": [{"flagged": True, "categories": names}]})
    assert read_moderation(body, 1) == ["hate/threatening, other, self-harm"]


async def test_a_failure_in_passing_is_tried_once_more() -> None:
    """One lost connection does not cost a batch; a second one does."""
    tries: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        tries.append(1)
        if len(tries) != 2:
            return web.Response(status=503)
        return web.json_response({"results": [FINE] * len((await request.json())["input"])})

    async with serving(handler) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url))
        assert statuses(await moderated.score(notes("a"), soon(20))) == ["answered"]
        assert statuses(await moderated.score(notes("a"), soon(20))) == ["unavailable"]
        await moderated.close()
    assert len(tries) == 4


def always(status: int, body: Any, requests: list[int], headers: dict[str, str] | None = None) -> Handler:
    """Answers every request so, and counts."""

    async def handler(_: web.Request) -> web.Response:
        requests.append(status)
        return web.json_response(body, status=status, headers=headers)

    return handler


NOT_YOURS = {"error": {"code": "permission_denied", "message": "x"}}
QUOTA = {"error": {"code": "insufficient_quota", "message": "x"}}


@pytest.mark.parametrize(("status", "body"), [(429, QUOTA), (402, {}), (401, {}), (403, NOT_YOURS), (404, {})])
async def test_what_no_other_request_would_survive_is_asked_once(status: int, body: Any) -> None:
    """A quota that is used up is not asked again, nor is a wrong key: behind a breaker ten records are one request."""
    requests: list[int] = []
    async with serving(always(status, body, requests)) as base_url:
        asked = endpoint(base_url)
        gates = (BreakerGate(asked.where), AdmissionGate(Limits()))
        moderated = Moderated(Says("m", "answered"), asked, gates=gates)
        rounds = [await moderated.score(notes("a"), soon(20)) for _ in range(10)]
        await moderated.close()
    assert requests == [status]
    assert {status for answers in rounds[1:] for status in statuses(answers)} == {"unavailable"}
    assert base_url in rounds[1][0].why
    assert gates[1].core.in_flight == gates[1].core.waiting() == 0


async def test_an_outage_is_not_asked_twice_by_every_record() -> None:
    """Retries come from a budget: where that has one, five records are six requests; then the breaker lets none through."""
    requests: list[int] = []
    retries = RetryBudget(soon(0), share=0.0, floor=0.0, most=1.0)
    async with serving(always(503, {}, requests)) as base_url:
        asked = endpoint(base_url)
        plain = Moderated(Says("m", "answered"), asked, retries=retries)
        for _ in range(5):
            await plain.score(notes("a"), soon(20))
        assert len(requests) == 6
        gated = Moderated(Says("m", "answered"), asked, gates=(BreakerGate(asked.where),))
        for _ in range(10):
            await gated.score(notes("a"), soon(20))
        assert len(requests) == 6 + IN_A_ROW
        await gated.close()


async def test_a_rate_limit_that_ends_in_time_is_waited_for_and_another_is_not() -> None:
    """A 429 costs no try, and what is sent again goes first in line; a pause past its part of the time is told at once."""
    short, long, gate = list[int](), list[int](), Recorder("g", [])

    async def three_times(_: web.Request) -> web.Response:
        short.append(1)
        if len(short) > 3:
            return web.json_response(_results(FINE))
        return web.json_response({}, status=503 if len(short) == 3 else 429, headers={"retry-after-ms": "5"})

    async with serving(three_times) as soonest, serving(always(429, {}, long, {"retry-after": "60"})) as late:
        for base_url, said in ((soonest, "answered"), (late, "limited")):
            moderated = Moderated(Says("m", "answered"), endpoint(base_url), gates=(gate,))
            assert statuses(await moderated.score(notes("a"), soon(20))) == [said]
            await moderated.close()
    assert (len(short), len(long)) == (4, 1)
    assert [asking.again for asking in gate.asked] == [False, True, True, False, False]
    told = [(ended.kind, ended.retry_after) for ended in gate.told]
    assert told == [("limited", 0.005)] * 2 + [("unavailable", None), ("served", None), ("limited", 60.0)]


async def test_a_text_that_a_firewall_forbids_costs_its_own_record_only() -> None:
    """A 403 without a reason is asked about in halves, and opens the breaker for nobody."""
    requests = 0

    async def walled(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        texts = (await request.json())["input"]
        if any("<script>" in text for text in texts):
            return web.Response(status=403, text="<html>Forbidden</html>", content_type="text/html")
        return web.json_response(_results(*[FINE] * len(texts)))

    async with serving(walled) as base_url:
        breaker = BreakerGate(base_url)
        moderated = Moderated(Says("m", "answered"), endpoint(base_url), gates=(breaker,))
        for _ in range(3):
            said = statuses(await moderated.score(notes("<script>", *"abcdefghijklmno"), soon(20)))
            assert said == ["rejected"] + ["answered"] * 15
        await moderated.close()
        assert breaker.closed()
    assert requests == 3 * 9


async def test_gates_are_told_how_each_request_ended() -> None:
    """Served with what was estimated; a body that is no moderation; a record that was cut off, or given up."""
    gate = Recorder("g", [])
    bodies: list[Any] = [_results(FINE), _results()]

    async def handler(_: web.Request) -> web.Response:
        if not bodies:
            await asyncio.sleep(60)
        return web.json_response(bodies.pop(0))

    async with serving(handler) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url), gates=(gate,))
        for seconds in (20.0, 20.0, 1.0):
            await moderated.score(notes("a"), soon(seconds))
        given_up = asyncio.ensure_future(moderated.score(notes("a"), soon(60)))
        while len(gate.asked) < 4:  # noqa: ASYNC110  # a counter of another part, read from outside
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.wait([given_up])
        await moderated.close()
    assert [ended.kind for ended in gate.told] == ["served", "protocol", "timeout", "cancelled"]
    assert gate.told[0].tokens is not None
    assert gate.told[0].tokens.input == gate.asked[0].tokens > 0
    assert dict(gate.asked[0].partitions) == {0: 1}


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, {}), (403, {}), (404, {}), (307, {}), (400, {}), (402, {}), (429, {}), (429, QUOTA), (503, {}), (200, {}), (200, [])],
)
async def test_every_failure_names_the_setting_of_moderation(status: int, body: Any) -> None:
    """And none that of a model."""
    async with serving(always(status, body, [])) as base_url:
        moderated = Moderated(Says("m", "answered"), endpoint(base_url))
        (answer,) = await moderated.score(notes("a"), soon(20))
        await moderated.close()
    assert "HEADRACE_MODERATION" in answer.why
    assert "HEADRACE_MODEL" not in answer.why
    assert answer.why.startswith("moderation: ")


async def test_a_failure_is_a_warning_that_says_who_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Of moderation, once, with its setting; what the model behind it fails at is left to the watch of the model."""
    watch, says = ModelWatch(Repeats((), seconds=0.0)), Says("m", "answered", "unavailable")
    async with serving(always(401, {}, [])) as base_url:
        asked = endpoint(base_url)
        moderated = Moderated(says, asked)
        who = f"the moderation endpoint {moderated.where}"
        watched = Watched(moderated, "agent", "review", watch, who=who, said=SAID)
        await watched.score(notes("", ""), soon(20))
        assert not caplog.messages
        await watched.score(notes("a"), soon(20))
        await watched.close()
    assert caplog.messages == [
        f"agent agent: {who} gives no answers (review): moderation: the endpoint does not accept the API key: set the api_key of "
        "HEADRACE_MODERATION (401)"
    ]


def over(card: Says, cheap: Says, strong: Says) -> Cascade:
    """A cascade whose tiers are certain of nothing."""
    return Cascade(Judged, strong, field="risk", scorecard=Tier(card, (0, 100)), cheap=Tier(cheap, (0, 100)), share=0.0)


async def test_around_a_cascade_a_text_is_asked_about_once_and_a_flag_stops_all_tiers() -> None:
    """What it flags once is asked of nobody; while it does not answer no scorecard decides either."""
    asked: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((await request.json())["input"])
        if len(asked) > 1:
            return web.Response(status=401)
        return web.json_response(_results(FINE, {"flagged": True, "categories": {"hate": True}}))

    tiers = [Says(name, "answered") for name in ("card", "cheap", "strong")]
    async with serving(handler) as base_url:
        moderated = Moderated(over(*tiers), endpoint(base_url))
        answers = await moderated.score(notes("a", "b", ""), soon(20))
        assert statuses(answers) == ["answered", "refused", "answered"]
        assert asked == [["a", "b"]]
        assert [tier.asked for tier in tiers] == [[["d0", "d2"]]] * 3
        assert statuses(await moderated.score(notes("a", ""), soon(20))) == ["rejected", "answered"]
        assert [tier.asked[1:] for tier in tiers] == [[["d1"]]] * 3
        await moderated.close()
    assert [tier.closed for tier in tiers] == [1, 1, 1]


async def test_around_a_cascade_room_and_weight_are_those_of_its_first_model() -> None:
    """And whoever listens for room is told by every tier."""

    class Heavy(Says):
        def weigh(self, features: BaseModel) -> int:
            """See models.contract.Weighing."""
            return 77

    tiers = [Says("card", "answered"), Heavy("cheap", "answered", room=False), Says("strong", "answered")]
    moderated = Moderated(over(*tiers), endpoint("http://127.0.0.1:9/v1"))
    moderated.on_room(lambda: None)
    assert (moderated.name, moderated.room(), moderated.weigh(Note(text="a"))) == ("strong", False, 77)
    assert [len(tier.told) for tier in tiers] == [1, 1, 1]
    await moderated.close()


async def test_what_the_endpoint_refuses_is_told_as_such() -> None:
    """A wrong key is "rejected", an endpoint that is not there "unavailable"; nothing is asked of the model."""
    says = Says("m", "answered")
    async with Sandbox(SandboxConfig(api_key="right")) as server:
        moderated = Moderated(says, endpoint(server.base_url, "wrong"))
        (answer,) = await moderated.score(notes("a"), soon(20))
        await moderated.close()
    assert answer.status == "rejected"
    assert answer.why.startswith("moderation: ")
    gone = Moderated(says, endpoint(server.base_url))
    assert statuses(await gone.score(notes("a"), soon(20))) == ["unavailable"]
    await gone.close()
    assert not says.asked


async def test_a_record_whose_text_can_not_be_read_is_invalid() -> None:
    """It is neither moderated nor asked."""
    says = Says("m", "answered")
    moderated = Moderated(says, endpoint("http://127.0.0.1:9/v1"))
    answers = await moderated.score([Question("d0", wrongly(Note, text=b"\xff")), *notes("")], soon(5))
    assert statuses(answers) == ["invalid", "answered"]
    await moderated.close()


async def test_the_sandbox_refuses_what_is_no_input() -> None:
    """A single text is one input; anything else is a 400 that is told, and no defect of the sandbox."""
    async with Sandbox() as server:
        asked = endpoint(server.base_url)
        reply = await asked.post(b'{"input":"say sandbox-flag"}', "/moderations")
        assert read_moderation(reply.body, 1) == ["sandbox"]
        moderated = Moderated(Says("m", "answered"), asked)
        with pytest.raises(Exception, match="does not accept this request"):
            await asked.post(b'{"input":[1]}', "/moderations")
        await moderated.close()


async def test_room_and_closing_are_those_of_the_scorer_within() -> None:
    """As of any wrapper."""
    says = Says("m", "answered", room=False)
    moderated = Moderated(says, endpoint("http://127.0.0.1:9/v1"))
    assert isinstance(moderated, Paced)
    assert (moderated.name, moderated.room()) == ("m", False)
    moderated.on_room(lambda: None)
    await moderated.close()
    assert (len(says.told), says.closed) == (1, 1)
