"""The chat transport against a real server over real HTTP: one answer each, whatever comes back."""

from __future__ import annotations

import asyncio
import logging

import pytest

from models.sandbox.server import MODEL, Sandbox, SandboxConfig
from schemas.audit import Call
from schemas.errors import ConfigError
from tests.support.scoring import ASK, chat, questions, soon, statuses

OK3 = ["answered"] * 3


# fault of each request in turn | status of the answers | status of each Call
TABLE = [
    ("nothing", (), OK3, ["ok"]),
    ("500 once", ("500",), OK3, ["unavailable", "ok"]),
    ("each that passes", ("503", "529"), OK3, ["unavailable", "unavailable", "ok"]),
    ("408 and 409", ("408", "409"), OK3, ["unavailable", "unavailable", "ok"]),
    ("5xx for good", ("500", "502", "503"), ["unavailable"] * 3, ["unavailable"] * 3),
    ("reset", ("reset",), OK3, ["unavailable", "ok"]),
    ("429 with Retry-After", ("429", "429"), OK3, ["limited", "limited", "ok"]),
    ("400 once", ("400",), OK3, ["rejected", "ok", "ok"]),
    ("400 for good", ("400",) * 3, ["rejected"] * 3, ["rejected"] * 3),
    ("401", ("401",), ["rejected"] * 3, ["rejected"]),
    ("403 once", ("403",), OK3, ["rejected", "ok", "ok"]),
    ("403 for good", ("403",) * 3, ["rejected"] * 3, ["rejected"] * 3),
    ("404", ("404",), ["rejected"] * 3, ["rejected"]),
    ("422 once", ("422",), OK3, ["rejected", "ok", "ok"]),
    ("422 for good", ("422",) * 3, ["rejected"] * 3, ["rejected"] * 3),
    ("redirect", ("307",), ["rejected"] * 3, ["rejected"]),
    ("web page", ("html",), OK3, ["protocol", "ok"]),
    ("web page for good", ("html", "html"), ["unavailable"] * 3, ["protocol"] * 2),
    ("{}", ("empty",), OK3, ["protocol", "ok"]),
    ("truncated body", ("truncated",), OK3, ["protocol", "ok"]),
    ("endless body", ("huge",), OK3, ["protocol", "ok"]),
    ("compressed body", ("gzip",), OK3, ["unavailable", "ok"]),
    ("bad JSON", ("bad-json",), OK3, ["partial", "ok", "ok"]),
    ("prose", ("prose",), OK3, ["partial", "ok", "ok"]),
    ("code fence", ("fence",), OK3, ["ok"]),
    ("no answers", ("no-list",), OK3, ["partial", "ok", "ok"]),
    ("missing", ("missing",), OK3, ["partial", "ok"]),
    ("missing for good", ("missing", "missing"), ["missing", "answered", "answered"], ["partial"] * 2),
    ("foreign", ("foreign",), OK3, ["partial", "ok"]),
    ("renumbered", ("renumbered",), OK3, ["partial", "ok", "ok"]),
    ("renumbered for good", ("renumbered",) * 5, ["missing"] * 3, ["partial"] * 5),
    ("duplicate", ("duplicate",), OK3, ["partial", "ok"]),
    ("reordered", ("reordered",), OK3, ["ok"]),
    ("out of range for good", ("range", "range"), ["invalid", "answered", "answered"], ["partial"] * 2),
    ("wrong types", ("types",), OK3, ["partial", "ok"]),
    ("refused once", ("refusal",), OK3, ["refused", "ok", "ok"]),
    (
        "one refused",
        ("refusal", "refusal", "", "refusal", ""),
        ["answered", "refused", "answered"],
        ["refused", "refused", "ok", "refused", "ok"],
    ),
    ("filtered", ("content_filter",), OK3, ["refused", "ok", "ok"]),
    ("cut", ("length",), OK3, ["partial", "ok", "ok"]),
]


@pytest.mark.parametrize(("schedule", "answered", "called"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
async def test_the_failure_table(schedule: tuple[str, ...], answered: list[str], called: list[str]) -> None:
    """Each signal of the failure table has its action, each request its Call, and no answer is another record's."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(schedule=schedule)) as server:
        scorer = chat(server.base_url, calls, concurrency=1)  # one at a time, so that faults meet the requests in order
        answers = await scorer.score(questions(3), soon(5))
        await scorer.close()
    assert sorted(statuses(answers)) == sorted(answered)
    assert [call.status for call in calls] == called
    assert all(answer.why for answer in answers if answer.status != "answered")
    assert all((answer.value is not None) == (answer.status == "answered") for answer in answers)
    assert "sk-test-secret" not in repr(answers) + repr(calls)


@pytest.mark.parametrize("fault", ["", "missing", "foreign", "duplicate", "reordered", "types", "refusal", "length", "html"])
async def test_a_fault_never_gives_a_record_anothers_answer(fault: str) -> None:
    """What was answered after a fault is what the same record is answered without one."""
    async with Sandbox() as clean, Sandbox(SandboxConfig(schedule=(fault,))) as faulty:
        first, second = chat(clean.base_url), chat(faulty.base_url)
        wanted = [answer.value for answer in await first.score(questions(8), soon(5))]
        got = [answer.value for answer in await second.score(questions(8), soon(5))]
        await first.close()
        await second.close()
    assert len(set(map(repr, wanted))) > 1
    assert got == wanted


@pytest.mark.parametrize("fault", ["hang", "drip"])
async def test_the_deadline_is_total(fault: str) -> None:
    """A server that never answers, or sends a byte at a time, costs the deadline and no more."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(faults={fault: 1.0})) as server:
        scorer = chat(server.base_url, calls)
        start = asyncio.get_running_loop().time()
        async with asyncio.timeout(20):  # or a deadline that is not kept would hold up the suite for ever
            answers = await scorer.score(questions(2), soon(0.4))
        took = asyncio.get_running_loop().time() - start
        await scorer.close()
    assert statuses(answers) == ["timeout", "timeout"]
    assert 0.35 < took < 5.0
    assert [call.status for call in calls] == ["timeout"]


async def test_waiting_for_a_place_counts_towards_the_deadline_and_sends_nothing() -> None:
    """With every place taken, a call that can not start in time is a timeout without a request."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(latency="600ms")) as server:
        scorer = chat(server.base_url, calls, concurrency=1)
        first = asyncio.create_task(scorer.score(questions(1), soon(5)))
        await asyncio.sleep(0.05)
        (late,) = await scorer.score(questions(1), soon(0.2))
        (early,) = await first
        await scorer.close()
        assert server.meter.most_in_flight == server.meter.requests == 1
    assert (late.status, late.call_id, early.status) == ("timeout", None, "answered")
    assert len(calls) == 1


async def test_nobody_listening_is_unavailable_and_says_so() -> None:
    """A refused connection is retried inside the deadline, then told as what it is."""
    async with Sandbox() as server:
        gone = server.base_url
    calls: list[Call] = []
    scorer = chat(gone, calls)
    (answer,) = await scorer.score(questions(1), soon(3))
    await scorer.close()
    assert answer.status == "unavailable"
    assert "ConnectionRefusedError" in answer.why
    assert [call.attempt for call in calls] == [1, 2, 3]


async def test_a_retry_after_past_the_deadline_is_not_waited_for() -> None:
    """429 whose Retry-After does not fit answers "limited" at once."""
    async with Sandbox(SandboxConfig(rpm=1)) as server:
        scorer = chat(server.base_url)
        await scorer.score(questions(1), soon(1))
        start = asyncio.get_running_loop().time()
        (answer,) = await scorer.score(questions(1), soon(5))
        assert asyncio.get_running_loop().time() - start < 1
        await scorer.close()
    assert answer.status == "limited"


async def test_a_rate_limit_is_waited_out_inside_the_deadline() -> None:
    """At 600 requests a minute, five requests at once are all answered, each as late as the endpoint asks."""
    async with Sandbox(SandboxConfig(rpm=600)) as server:
        scorer = chat(server.base_url)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(5)) for _ in range(15)))
        await scorer.close()
        assert server.meter.limited > 0
    assert {answer.status for answers in rounds for answer in answers} == {"answered"}


async def test_an_audit_record_says_what_was_asked_and_what_came() -> None:
    """A Call names records in order, hashes, tokens by class as reported, times in order, and who answered."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(latency="20ms")) as server:
        scorer = chat(server.base_url, calls, manifest="abc", model="gpt-x", masking="scrub-1")
        answers = await scorer.score(questions(3), soon(5))
        await scorer.close()
        usage = server.meter.as_json()["tokens"]
        where = server.base_url
    (call,) = calls
    assert call.records == ["d0", "d1", "d2"]
    assert (call.agent, call.manifest, call.endpoint, call.attempt) == ("test", "abc", where, 1)
    assert (call.model_requested, call.model_returned, call.finish_reason) == ("gpt-x", MODEL, "stop")
    assert call.tokens.model_dump() == {"input": usage["input"], "cached_input": 0, "output": usage["output"], "reasoning": 0}
    assert call.tokens.input > 0
    assert call.masking == "scrub-1"
    assert call.request_hash != call.response_hash
    assert call.parameters == {"response_format": "json_schema", "temperature": 0.0, "max_tokens": 512}
    times = [call.queued_at, call.sent_at, call.first_at, call.done_at]
    assert all(times)
    assert times == sorted(times, key=str)
    for place, answer in enumerate(answers):
        assert (answer.call_id, answer.position, answer.model_returned) == (call.call_id, place, MODEL)


async def test_a_cancelled_call_is_audited_too() -> None:
    """Whoever stops waiting leaves a Call behind that says so."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(latency="5s")) as server:
        scorer = chat(server.base_url, calls)
        task = asyncio.create_task(scorer.score(questions(1), soon(5)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await scorer.close()
    assert [call.status for call in calls] == ["cancelled"]


@pytest.mark.parametrize(
    ("rejects", "refused"),
    [
        ({"max_tokens"}, 1),
        ({"temperature"}, 1),
        ({"json_schema"}, 1),
        ({"json_schema", "json_object", "max_tokens", "temperature"}, 4),
    ],
)
async def test_an_endpoint_is_asked_in_the_way_it_understands_and_remembered(rejects: set[str], refused: int) -> None:
    """A server that does not know a parameter names it once; from then on it is asked without."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(rejects=frozenset(rejects))) as server:
        scorer = chat(server.base_url, calls)
        assert statuses(await scorer.score(questions(2), soon(5))) == ["answered"] * 2
        assert [call.status for call in calls] == ["rejected"] * refused + ["ok"]
        calls.clear()
        await scorer.score(questions(2), soon(5))
        assert [call.status for call in calls] == ["ok"]
        await scorer.close()


async def test_a_wrong_key_says_what_to_do_and_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    """401 names the setting; neither the answer, the audit, a repr nor a log holds the key or the prompt."""
    caplog.set_level(logging.DEBUG)
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(api_key="another")) as server:
        scorer = chat(server.base_url, calls, api_key="sk-test-secret")
        (answer,) = await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert answer.status == "rejected"
    assert "HEADRACE_MODEL_API_KEY" in answer.why
    everything = repr(answer) + repr(calls) + repr(scorer) + caplog.text
    assert "sk-test-secret" not in everything
    assert ASK.prompt not in caplog.text


async def test_the_keys_of_other_services_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key of ours, the SDK's own variables do not stand in for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-service")
    seen: dict[str, str] = {}

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["head"] = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        scorer = chat(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", api_key=None)
        await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert "another-service" not in seen["head"]
    assert "authorization: bearer none" in seen["head"].lower()


async def test_bytes_that_are_no_http_are_an_outage() -> None:
    """A server that speaks something else is unavailable; nothing of it leaves as an exception."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        scorer = chat(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        (answer,) = await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert answer.status == "unavailable"


@pytest.mark.parametrize(
    ("url", "key"), [("127.0.0.1:8080/v1", "k"), ("ftp://host/v1", "k"), ("http:///v1", "k"), ("http://h/v1", "a\nb")]
)
def test_what_can_not_be_a_url_or_a_key_is_refused_at_start(url: str, key: str) -> None:
    """A configuration that can not work fails when the scorer is made, and the message has neither."""
    with pytest.raises(ConfigError, match="HEADRACE_MODEL"):
        chat(url, api_key=key)


@pytest.mark.parametrize("put", ["http://user:hidden@h/v1", "http://hidden@h/v1", "http://h/v1?tok=hidden", "http://h/v1#hidden"])
def test_a_secret_in_the_url_is_refused_at_start_and_not_repeated(put: str) -> None:
    """A user, a password, a query or a fragment can not work and would be logged; the message names the setting alone."""
    with pytest.raises(ConfigError, match="HEADRACE_MODEL_BASE_URL must have no user") as refused:
        chat(put)
    assert "hidden" not in str(refused.value)


def test_a_url_that_is_broken_is_refused_like_any_other() -> None:
    """What can not even be taken apart is a configuration error, too."""
    for broken in ("http://[::1/v1", "http://h:port/v1"):
        with pytest.raises(ConfigError, match="HEADRACE_MODEL_BASE_URL"):
            chat(broken)
