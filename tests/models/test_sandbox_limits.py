"""The sandbox's limits, what changes them, who else uses them, its outages and its own count: on a clock of the test's."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp
import pytest

from models.sandbox.account import FOREIGN_TOKENS, Account, AccountLimits, duration
from models.sandbox.limits import Bucket, Minute
from models.sandbox.schedule import Outage, Schedule, parse_changes, parse_outages
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.errors import ConfigError

HELLO = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 1000}


class Clock:
    """Shows what it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def account(clock: Clock, schedule: Schedule | None = None, **limits: Any) -> Account:
    """One with these limits."""
    return Account(AccountLimits(**limits), schedule or Schedule(), clock, random.Random(3))


def asked(account: Account, clock: Clock, until: float, step: float = 0.05, tokens: int = 100) -> int:
    """How many of the requests that come every `step` seconds until then are admitted."""
    admitted = 0
    while clock.now < until:
        admitted += account.admit(tokens, 0) == 0.0
        clock.now += step
    return admitted


async def post(server: Sandbox, body: Any = HELLO) -> tuple[int, dict[str, str]]:
    """Status and headers, names in lower case, of one chat request."""
    async with aiohttp.ClientSession() as session, session.post(f"{server.base_url}/chat/completions", json=body) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}


async def meter(server: Sandbox) -> Any:
    """What it counted."""
    async with aiohttp.ClientSession() as session, session.get(server.base_url.replace("/v1", "/sandbox/meter")) as response:
        return await response.json()


# ---- allowances ----------------------------------------------------------------------------------------------------------------
def test_a_minute_is_given_out_at_once_and_not_before_the_next() -> None:
    """All of it may go in a moment; then nothing until the minute's end, and nothing is saved up."""
    clock = Clock()
    minute = Minute(10, clock)
    for _ in range(10):
        assert minute.wait(1) == 0
        minute.take(1)
    assert (minute.wait(1), minute.reset) == (60, 60)
    clock.now = 59.9
    assert minute.left == 0
    clock.now = 200
    assert (minute.left, minute.reset) == (10, 40)


def test_the_part_of_a_minute_that_is_left_at_the_start_is_given_in_proportion() -> None:
    """The first minute begins after the phase: what is admitted by a minute's end is never more than limit times time."""
    clock = Clock()
    minute = Minute(60, clock, phase=10)
    assert (minute.left, minute.reset) == (10, 10)
    clock.now = 10
    assert (minute.left, minute.reset) == (60, 60)


def test_what_costs_more_than_a_minute_waits_for_a_whole_one() -> None:
    """It is admitted in the end, and the next minute starts anew."""
    clock = Clock()
    minute = Minute(10, clock)
    minute.take(1)
    assert minute.wait(25) == 60
    clock.now = 60
    assert minute.wait(25) == 0
    minute.take(25)
    assert minute.left == 0
    clock.now = 120
    assert minute.left == 10


@pytest.mark.parametrize("make", [lambda clock: Bucket(600, clock), lambda clock: Minute(600, clock, 30)])
def test_a_limit_that_changes_takes_what_is_left_with_it(make: Any) -> None:
    """Halved: half of what is left, and from then on half as much a minute."""
    clock = Clock()
    allowance = make(clock)
    left = allowance.left
    allowance.change(300)
    assert (allowance.left, allowance.per_minute) == (left // 2, 300)
    for make_nothing in (0, -1):
        with pytest.raises(ConfigError):
            allowance.change(make_nothing)


# ---- the account ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("window", ["evenly", "by the minute"])
@pytest.mark.parametrize("limits", [{"rpm": 600}, {"tpm": 60_000}])
def test_whoever_always_asks_gets_what_the_count_says_is_admissible(window: str, limits: dict[str, int]) -> None:
    """Over two minutes, the limit halved after the first: a burst apart, admitted and admissible are the same."""
    clock = Clock()
    found = account(clock, Schedule(changes=((60.0, 0.5),)), window=window, **limits)
    admitted = asked(found, clock, 119.99)
    ((name, admissible),) = found.as_json()["admissible"].items()
    assert admissible == pytest.approx((600 + 300) * (1 if name == "requests" else 100), rel=0.01)
    assert admitted * (1 if name == "requests" else 100) == pytest.approx(admissible, rel=0.02)
    assert found.as_json()["admitted"] == admitted


@pytest.mark.parametrize("window", ["evenly", "by the minute"])
def test_another_client_takes_its_part_and_what_is_left_is_ours(window: str) -> None:
    """It takes about three tenths of the limit where we leave it any, and admitted and its part make up what is admissible."""
    clock = Clock()
    found = account(clock, window=window, rpm=600, tpm=10_000_000, foreign=0.3)
    asked(found, clock, 300.0, step=1 / 7)
    said = found.as_json()
    assert said["foreign"]["requests"] == pytest.approx(0.3 * 3000, rel=0.1)
    assert said["foreign"]["tokens"] == FOREIGN_TOKENS * said["foreign"]["requests"]
    assert said["admitted"] + said["foreign"]["requests"] <= said["admissible"]["requests"] + 10
    assert said["admitted"] == pytest.approx(0.7 * 3000, rel=0.05)


@pytest.mark.parametrize(("charges", "costs"), [("used", 150), ("reserved", 1100)])
def test_a_request_costs_what_it_used_or_what_it_reserved(charges: str, costs: int) -> None:
    """100 tokens of input, 1,000 reserved for the output, 50 used."""
    clock = Clock()
    found = account(clock, tpm=600_000, charges=charges)
    before = int(found.headers()["x-ratelimit-remaining-tokens"])
    assert found.admit(100, 1000) == 0
    found.used(50)
    assert before - int(found.headers()["x-ratelimit-remaining-tokens"]) == costs


def test_what_is_refused_costs_nothing() -> None:
    """Neither of the two limits is charged where one of them is reached."""
    clock = Clock()
    found = account(clock, rpm=60, tpm=600_000)
    assert found.admit(100, 0) == 0
    left = found.headers()["x-ratelimit-remaining-tokens"]
    assert found.admit(100, 0) > 0
    assert found.headers()["x-ratelimit-remaining-tokens"] == left
    assert found.as_json()["admitted"] == 1


def test_an_outage_admits_nothing_and_is_not_admissible() -> None:
    """Outages that overlap count once, for the other client as well."""
    clock = Clock()
    schedule = Schedule(outages=(Outage(10, 20), Outage(15, 30, "hang"), Outage(50, float("inf"))))
    found = account(clock, schedule, rpm=600, foreign=1.0)
    clock.now = 10.0
    taken = found.as_json()["foreign"]["requests"]
    clock.now = 29.9
    assert found.as_json()["foreign"]["requests"] == taken > 0
    clock.now = 100.0
    assert found.as_json()["admissible"]["requests"] == pytest.approx(10 * (10 + 20))


@pytest.mark.parametrize(
    ("seconds", "written"), [(0, "0s"), (0.12, "120ms"), (1.2, "1.2s"), (59.996, "59.996s"), (360, "6m0s"), (61.5, "1m1.5s")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, written: str) -> None:
    """As in x-ratelimit-reset-requests."""
    assert duration(seconds) == written


# ---- over HTTP -----------------------------------------------------------------------------------------------------------------
async def test_by_the_minute_a_refusal_says_when_the_next_one_begins() -> None:
    """The headers name limit, rest and the time until the minute's end; then the minute is there again."""
    clock = Clock()
    async with Sandbox(SandboxConfig(rpm=2, window="by the minute", phase=0.0), clock=clock) as server:
        clock.now = 18.0
        assert [(await post(server))[0] for _ in range(2)] == [200, 200]
        status, headers = await post(server)
        assert (status, headers["retry-after"], headers["retry-after-ms"]) == (429, "42", "42000")
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"] == "42s"
        clock.now = 60.0
        assert (await post(server))[0] == 200


async def test_a_sandbox_without_headers_tells_nobody_anything() -> None:
    """Neither an answer nor a refusal has a hint."""
    async with Sandbox(SandboxConfig(rpm=60, headers=False), clock=Clock()) as server:
        for expected in (200, 429):
            status, headers = await post(server)
            assert status == expected
            assert not any(name.startswith(("x-ratelimit", "retry-after")) for name in headers)


@pytest.mark.parametrize(("charges", "admitted"), [("used", 2), ("reserved", 1)])
async def test_what_a_request_reserves_is_read_from_it(charges: Any, admitted: int) -> None:
    """Two requests of a thousand tokens of output each under 1,500 a minute."""
    config = SandboxConfig(tpm=1500, window="by the minute", charges=charges)
    async with Sandbox(config, clock=Clock()) as server:
        statuses = [(await post(server))[0] for _ in range(2)]
        assert statuses.count(200) == admitted
        assert server.meter.limited == 2 - admitted


async def test_the_meter_tells_what_came_when_and_what_the_limits_are() -> None:
    """Counts for each second, what was admitted and what would have been."""
    clock = Clock()
    async with Sandbox(SandboxConfig(rpm=60, outages=(Outage(5, 6),)), clock=clock) as server:
        for at in (0.0, 0.1, 2.0, 5.0):
            clock.now = at
            await post(server)
        found = await meter(server)
    assert found["timeline"] == [
        [0, {"came": 2, "admitted": 1, "answered": 1}], [2, {"came": 1, "admitted": 1, "answered": 1}], [5, {"came": 1}],
    ]  # fmt: skip
    assert (found["requests"], found["out"], found["limited"], found["limits"]["admitted"]) == (4, 1, 1, 2)
    assert found["limits"]["admissible"]["requests"] == pytest.approx(5)


async def test_an_outage_of_503_begins_and_ends_by_the_clock() -> None:
    """Before and after it there are answers."""
    clock = Clock()
    async with Sandbox(SandboxConfig(outages=parse_outages("10-20")), clock=clock) as server:
        statuses = []
        for at in (9.9, 10.0, 19.9, 20.0):
            clock.now = at
            statuses.append((await post(server))[0])
    assert statuses == [200, 503, 503, 200]


async def test_an_outage_that_hangs_answers_nothing_until_it_is_over() -> None:
    """The request stays open; then its connection is reset."""
    clock = Clock()
    async with Sandbox(SandboxConfig(outages=(Outage(0, 0.3, "hang"),)), clock=clock) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await post(server)
        with pytest.raises(aiohttp.ClientError):
            await post(server)


async def test_an_outage_that_refuses_takes_no_connection_and_resets_those_there_are() -> None:
    """New connections are refused, an open one is reset, and after it both are served again at the same port."""
    loop = asyncio.get_running_loop()
    async with Sandbox(SandboxConfig(outages=(Outage(0.3, 0.8, "refused"),)), clock=loop.time) as server:
        url = f"{server.base_url}/chat/completions"
        async with aiohttp.ClientSession() as session:
            assert (await session.post(url, json=HELLO)).status == 200
            await asyncio.sleep(0.5)
            with pytest.raises(aiohttp.ClientError):
                await session.post(url, json=HELLO)  # over the connection that is there
            with pytest.raises(aiohttp.ClientConnectorError):
                await post(server)
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert (await post(server))[0] == 200
                        break
                    except aiohttp.ClientConnectorError:
                        await asyncio.sleep(0.1)
        assert server.meter.out == 1


# ---- what can not work --------------------------------------------------------------------------------------------------------
def test_a_schedule_is_read_as_written() -> None:
    """Seconds, factors, kinds; one without an end lasts."""
    assert parse_changes("40:0.5, 80:1") == ((40.0, 0.5), (80.0, 1.0))
    assert parse_outages("60-120,200.5-230:refused, 300-:hang") == (
        Outage(60, 120, "503"), Outage(200.5, 230, "refused"), Outage(300, float("inf"), "hang"),
    )  # fmt: skip
    assert (parse_changes(""), parse_outages("")) == ((), ())


@pytest.mark.parametrize("make", [
    lambda: parse_changes("40"),
    lambda: parse_changes("40:half"),
    lambda: parse_outages("60"),
    lambda: parse_outages("60-120:explode"),
    lambda: Schedule(changes=((40, 0.5), (30, 1))),
    lambda: Schedule(changes=((40, 0.0),)),
    lambda: Schedule(outages=(Outage(60, 60),)),
    lambda: AccountLimits(foreign=1.5),
    lambda: SandboxConfig(rpm=60, foreign=-0.1),
    lambda: Minute(0, Clock()),
])  # fmt: skip
def test_what_can_not_work_is_refused(make: Any) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigError):
        make()
