"""The gate around admission: requests wait in the event loop, and over real HTTP nothing is refused that need not be."""

from __future__ import annotations

import asyncio

import pytest

from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.gate import Asking, Ended, Gate
from models.gates.slots import Slots
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.scoring import chat, questions, soon, statuses
from tests.support.virtual_time import run

ASKING = Asking("a", 10, 10, {0: 1})


async def test_told_of_the_limit_nothing_is_refused_and_all_is_answered() -> None:
    """Forty calls at once against 600 a minute: paced here, not refused there."""
    gate = AdmissionGate(Limits(rpm=600))
    async with Sandbox(SandboxConfig(rpm=600)) as server:
        scorer = chat(server.base_url, gates=[gate], pacer=gate)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(60)) for _ in range(40)))
        await scorer.close()
        assert server.meter.limited <= 1  # two clocks
    assert {answer.status for answers in rounds for answer in answers} == {"answered"}
    assert gate.core.in_flight == gate.core.waiting() == 0


async def test_untold_the_limit_is_found_and_all_is_answered() -> None:
    """Requests that were refused go first when the endpoint has them again; none is lost or given up."""
    gate = AdmissionGate(Limits())
    async with Sandbox(SandboxConfig(rpm=600)) as server:
        scorer = chat(server.base_url, gates=[gate], pacer=gate)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(60)) for _ in range(60)))
        await scorer.close()
        assert server.meter.limited < 30  # none where its headers say the limit
    assert {answer.status for answers in rounds for answer in answers} == {"answered"}


async def _refusals(gate: Gate, hint: float | None) -> int:
    """How many 429s with this hint eight requests get in a minute; they go back to the gate as often as they are refused."""
    found, until = 0, soon(60)

    async def ask() -> None:
        nonlocal found
        again = False
        while True:
            leave = await gate.enter(Asking("a", 10, 10, {0: 1}, again), until)
            await asyncio.sleep(0.003)
            leave(Ended("limited", None, 0.003, hint, status=429))
            found, again = found + 1, True

    ends = await asyncio.gather(*(ask() for _ in range(8)), return_exceptions=True)
    assert {type(end) for end in ends} == {TimeoutError}
    return found


@pytest.mark.parametrize("hint", [None, 0.0, -1.0, 0.005])
@pytest.mark.parametrize("rpm", [None, 3000])
def test_a_hint_to_wait_makes_no_pause_shorter(rpm: int | None, hint: float | None) -> None:
    """An endpoint that refuses everything and says to come back at once is asked as seldom as one that says nothing."""
    assert run(_refusals(AdmissionGate(Limits(rpm=rpm)), hint)) <= 30
    assert run(_refusals(Slots(1, lambda: 0.5), hint)) <= (30 if hint is None or hint <= 0 else 60 / 0.2 + 1)


def test_a_hint_to_wait_makes_a_pause_longer() -> None:
    """Who says ten seconds is asked six times in a minute, once those under way together were refused."""
    assert 5 <= run(_refusals(AdmissionGate(Limits(rpm=3000)), 10.0)) <= 8 + 6
    assert 5 <= run(_refusals(Slots(1, lambda: 0.5), 10.0)) <= 8


async def test_a_turn_that_does_not_come_in_time_is_a_timeout_and_leaves_nothing_behind() -> None:
    """At the deadline, or when the caller goes away: the queue forgets it, and the next one goes."""
    gate = AdmissionGate(Limits(concurrency=1))
    leave = await gate.enter(ASKING, soon(60))
    with pytest.raises(TimeoutError):
        await gate.enter(ASKING, soon(0.05))
    waiting = asyncio.ensure_future(gate.enter(ASKING, soon(60)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert gate.core.waiting() == 0
    leave(Ended("served"))
    async with asyncio.timeout(60):
        (await gate.enter(ASKING, soon(60)))(Ended("served"))
    assert gate.core.in_flight == 0


async def test_whoever_was_told_that_there_is_no_room_is_told_when_there_is() -> None:
    """After a 429 with a pause, and after a queue."""
    gate, told = AdmissionGate(Limits(concurrency=1)), asyncio.Event()
    gate.on_room("a", told.set)
    assert gate.room("a")
    leave = await gate.enter(ASKING, soon(16))
    queued = asyncio.ensure_future(gate.enter(ASKING, soon(16)))
    await asyncio.sleep(0.05)
    assert not gate.room("a")
    leave(Ended("limited", retry_after=5.0))
    assert not gate.room("a")
    async with asyncio.timeout(60):
        (await queued)(Ended("served"))
        await told.wait()
    assert gate.room("a")


async def test_an_agent_without_partitions_has_no_room() -> None:
    """And has it as soon as it owns some."""
    gate, told = AdmissionGate(Limits(rpm=600)), asyncio.Event()
    gate.on_room("a", told.set)
    gate.share("a", 0.0)
    assert not gate.room("a")
    gate.share("a", 0.5)
    async with asyncio.timeout(60):
        await told.wait()
    assert gate.room("a")


async def test_a_batch_larger_than_the_allowance_goes_when_it_is_full() -> None:
    """It is not stuck for ever; what it owes is waited for by the next."""
    gate = AdmissionGate(Limits(tpm=600))
    large = Asking("a", 500, 500, {0: 16})
    async with asyncio.timeout(60):
        (await gate.enter(large, soon(30)))(Ended("unavailable"))
    with pytest.raises(TimeoutError):
        await gate.enter(large, soon(0.3))


async def test_answers_of_a_paced_scorer_are_as_those_of_any_other() -> None:
    """The gate changes when requests leave, and nothing else."""
    gate = AdmissionGate(Limits())
    async with Sandbox() as server:
        plain, paced = chat(server.base_url), chat(server.base_url, gates=[gate], pacer=gate)
        wanted, got = [await scorer.score(questions(8), soon(30)) for scorer in (plain, paced)]
        await plain.close()
        await paced.close()
    assert statuses(got) == ["answered"] * 8
    assert [answer.value for answer in got] == [answer.value for answer in wanted]
