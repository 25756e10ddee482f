"""How long requests take: who has too little time does not leave, is not paid for, and says nothing of the endpoint."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker import IN_A_ROW
from models.gates.breaker_gate import BreakerGate
from models.gates.gate import Asking, Ended, Refused
from models.gates.usual_time import LEAST_EVIDENCE, TRY_SECONDS, UsualTime
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import chat, questions, soon, statuses
from tests.support.virtual_time import run

ASKING = Asking("a", 100, 100, {0: 1})
LARGE = Asking("a", 4000, 4000, {0: 16})


@given(st.lists(st.floats(0, 100), max_size=60))
def test_nothing_is_known_before_there_is_evidence_and_little_is_claimed_after(times: list[float]) -> None:
    """It is 0 for the first answers, then at most a tenth of the last twenty was quicker; other sizes and agents are others."""
    usual = UsualTime()
    for count, seconds in enumerate(times, 1):
        usual.served("a", 200, seconds)
        last = times[max(0, count - 20) : count]
        if count < LEAST_EVIDENCE:
            assert usual.least("a", 200) == 0
        else:
            assert sum(one < usual.least("a", 200) for one in last) <= len(last) / 10
    assert usual.least("a", 2000) == usual.least("b", 200) == 0


async def passed(gate: AdmissionGate | BreakerGate, ended: Ended, asking: Asking = ASKING, times: int = 1) -> None:
    """So many requests that end so, with time enough."""
    for _ in range(times):
        (await gate.enter(asking, soon(60)))(ended)


async def test_a_request_with_too_little_time_is_refused_and_leaves_nothing_behind() -> None:
    """Once five took 2 s one with 1 s is refused at once; one with 3 s passes, and so does one of a size that nobody timed."""
    gate = AdmissionGate(Limits(rpm=60_000))
    await passed(gate, Ended("served", seconds=2.0), times=LEAST_EVIDENCE - 1)
    (await gate.enter(ASKING, soon(1)))(Ended("served", seconds=2.0))
    with pytest.raises(Refused, match=r"such a request takes 2\.0 s") as refused:
        await gate.enter(ASKING, soon(1))
    assert refused.value.status == "timeout"
    assert (gate.core.waiting(), gate.core.in_flight, gate.stats.admitted) == (0, 0, LEAST_EVIDENCE)
    (await gate.enter(ASKING, soon(30)))(Ended("served", seconds=2.0))
    (await gate.enter(LARGE, soon(1)))(Ended("served", seconds=2.0))


async def test_a_slow_agent_does_not_starve_a_fast_one() -> None:
    """Where one agent's requests take 1.6 s, another's of that size that take 0.1 s leave with 1 s; so it is for the breaker."""
    admission, breaker = AdmissionGate(Limits(rpm=60_000)), BreakerGate("there")
    quick = Asking("b", 100, 100, {0: 1})
    for gate in (admission, breaker):
        await passed(gate, Ended("served", seconds=1.6), times=2 * LEAST_EVIDENCE)
    for _ in range(2 * LEAST_EVIDENCE):
        (await admission.enter(quick, soon(1)))(Ended("served", seconds=0.1))
    with pytest.raises(Refused, match=r"such a request takes 1\.6 s"):
        await admission.enter(ASKING, soon(1))
    await passed(breaker, Ended("served", seconds=0.1), quick, LEAST_EVIDENCE)
    await passed(breaker, Ended("timeout", seconds=1.0), quick, IN_A_ROW)
    assert breaker.breaker.state == "open"


def test_what_is_remembered_is_bounded() -> None:
    """After ten thousand kinds of request the first is forgotten, and one that is told of again and again is not."""
    usual = UsualTime()
    for number in range(10_000):
        for _ in range(LEAST_EVIDENCE):
            usual.served(f"agent {number}", 100, 1.0)
        usual.served("constant", 100, 2.0)
    assert (usual.least("agent 0", 100), usual.least("agent 9999", 100), usual.least("constant", 100)) == (0.0, 1.0, 2.0)


async def test_after_a_429_the_rate_is_what_is_told() -> None:
    """A request that came back from one is late for that reason."""
    gate = AdmissionGate(Limits())
    await passed(gate, Ended("served", seconds=2.0), times=LEAST_EVIDENCE)
    with pytest.raises(TimeoutError):
        await gate.enter(Asking("a", 100, 100, {0: 1}, again=True), soon(1))


async def _waits() -> tuple[float, float]:
    gate = AdmissionGate(Limits(concurrency=1))
    await passed(gate, Ended("served", seconds=2.0), times=LEAST_EVIDENCE)
    now = asyncio.get_running_loop().time
    leave, begun = await gate.enter(ASKING, soon(60)), now()
    with pytest.raises(Refused):
        await gate.enter(ASKING, soon(5))
    waited = now() - begun
    doubtful = asyncio.ensure_future(gate.enter(LARGE, soon(5)))
    await asyncio.sleep(4)
    for _ in range(LEAST_EVIDENCE):
        gate.usual.served(LARGE.agent, LARGE.output_tokens, 2.0)  # of others, meanwhile
    leave(Ended("served", seconds=2.0))
    with pytest.raises(Refused):
        await doubtful
    assert (gate.core.waiting(), gate.core.in_flight) == (0, 0)
    return waited, now() - begun


def test_nobody_waits_for_a_turn_that_would_come_too_late() -> None:
    """With 5 s for what takes 2 it waits 3; one whose turn comes when that is known of its size does not leave either."""
    waited, ended = run(_waits())
    assert waited == pytest.approx(3.0, abs=0.1)
    assert ended == pytest.approx(7.0, abs=0.1)


async def _faster() -> list[float]:
    gate, tries = AdmissionGate(Limits(rpm=60_000)), list[float]()
    now = asyncio.get_running_loop().time
    await passed(gate, Ended("served", seconds=2.0), times=LEAST_EVIDENCE)
    begun = now()
    for _ in range(200):
        try:
            (await gate.enter(ASKING, soon(1)))(Ended("served", seconds=0.1))
        except Refused:
            await asyncio.sleep(0.5)
        else:
            tries.append(now() - begun)
            if len(tries) > 2:
                break
    return tries


def test_an_endpoint_that_became_faster_is_found_out() -> None:
    """One with too little time is let through now and then; once that was answered in time, all are."""
    tries = run(_faster())
    assert tries[0] == pytest.approx(TRY_SECONDS, abs=0.6)
    assert tries[2] - tries[1] < 0.1


async def test_a_request_that_was_cut_off_too_early_is_no_failure() -> None:
    """Of requests that take 2 s, ten with less time open no breaker, five with more do; where nothing is known each counts."""
    gate, unknown = BreakerGate("there"), BreakerGate("there")
    await passed(gate, Ended("served", seconds=2.0), times=LEAST_EVIDENCE)
    await passed(gate, Ended("timeout", seconds=1.9), times=2 * IN_A_ROW)
    assert gate.breaker.state == "closed"
    await passed(gate, Ended("timeout", seconds=2.1), times=IN_A_ROW)
    await passed(unknown, Ended("timeout", seconds=0.1), times=IN_A_ROW)
    assert (gate.breaker.state, unknown.breaker.state) == ("open", "open")


async def _queue(calls: list[Call], short: bool) -> tuple[list[str], BreakerGate, int]:
    """Thirty at once, ten a second, of which each takes 0.8 s and has 2.05 s."""
    breaker, admission = BreakerGate("there"), AdmissionGate(Limits(rpm=600))
    if not short:
        admission.usual = UsualTime()
        admission.usual.served = lambda agent, size, seconds: None  # type: ignore[method-assign]  # as if it knew nothing
    async with Sandbox(SandboxConfig(latency="800ms")) as server:
        scorer = chat(server.base_url, calls, gates=[breaker, admission], pacer=admission)
        first = asyncio.ensure_future(scorer.score(questions(1), soon(5)))
        while not server.meter.requests:  # noqa: ASYNC110  # the SDK begins in a thread: no time may pass
            await asyncio.sleep(0)
        await first
        for _ in range(LEAST_EVIDENCE - 1):
            await scorer.score(questions(1), soon(5))
        calls.clear()
        before = server.meter.requests
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(2.05)) for _ in range(30)))
        await scorer.close()
        return [status for answers in rounds for status in statuses(answers)], breaker, server.meter.requests - before


@pytest.mark.parametrize("short", [True, False], ids=["refused", "sent all the same"])
def test_over_http_what_would_be_late_costs_nothing_and_opens_no_breaker(short: bool) -> None:
    """The last ones of a queue do not leave; where one does leave and is cut off, the endpoint is not blamed for it."""
    calls: list[Call] = []
    found, breaker, requests = run(_queue(calls, short))
    assert found.count("answered") >= 12
    assert set(found) == {"answered", "timeout"}
    assert breaker.breaker.state == "closed"
    if short:
        assert {call.status for call in calls} == {"ok"}
        assert len(calls) == requests
    else:
        assert "timeout" in {call.status for call in calls}


def test_what_was_long_ago_is_forgotten() -> None:
    """Only the last answers count, whether they were quicker or slower than those before."""
    usual = UsualTime()
    for seconds in (10.0, 1.0, 5.0):
        for _ in range(200):
            usual.served("a", 100, seconds)
        assert usual.least("a", 100) == seconds
