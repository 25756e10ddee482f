"""A client that always has more to ask, for a minute or two from its start: what it makes of a limit, and what it loses.

Short runs, slow start included; those of twenty minutes are in test_admission_simulated.py. Here the gates are the real ones,
with deadlines, in virtual time, against the sandbox's own account.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models.gates.admission import Admission, Limits, Ticket
from models.gates.admission_gate import AdmissionGate
from models.gates.concurrency_limit import ConcurrencyLimit
from models.gates.gate import Asking, Ended, Refused
from schemas.audit import Tokens
from tests.support.saturated import Found, saturate
from tests.support.virtual_time import run

RPM, TPM = 600, 380_000
SECONDS = {"evenly": 90.0, "by the minute": 130.0}
CHANGES: dict[str, Any] = {"plain": {}, "halved": {}, "foreign": {"foreign": 0.3}}


def run_one(window: str, what: str, change: str, *, told: bool, stalls: float = 0.0, seed: int = 5) -> Found:
    """From the first request on; by the minute, ten seconds and two whole minutes."""
    limit = {"rpm": RPM} if what == "requests" else {"tpm": TPM}
    server = {**limit, "window": window, "phase": 10.0, "headers": told, **CHANGES[change]}
    limits = Limits(rpm=limit.get("rpm"), tpm=limit.get("tpm")) if told else Limits()
    changes = ((40.0, 0.5),) if change == "halved" else ()
    return run(saturate(limits, server, SECONDS[window], changes=changes, seed=seed, stalls=stalls))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("what", ["requests", "tokens"])
@pytest.mark.parametrize("window", SECONDS)
def test_a_limit_is_used_from_the_start_and_hardly_overrun(window: str, what: str, told: bool, change: str) -> None:
    """Told: 0.97 in 1.03 requests a decision; untold, or told what is not so: 0.93 in 1.10; nobody is shut out by a breaker."""
    found = run_one(window, what, change, told=told)
    exact = told and change == "plain"
    assert found.goodput >= (0.97 if exact else 0.93)
    assert found.per_success <= (1.03 if exact else 1.10)
    assert "Refused" not in found.lost
    # Whoever was on the way or about to leave when a minute's allowance ended: of about a thousand records.
    assert sum(found.lost.values()) <= (0 if exact else 120)


@pytest.mark.parametrize("window", SECONDS)
def test_a_client_that_is_kept_from_running_loses_little(window: str) -> None:
    """Told, and twice a second nothing runs for up to 0.4 s."""
    found = run_one(window, "requests", "plain", told=True, stalls=0.4)
    assert found.goodput >= 0.95
    assert found.per_success <= 1.03


@pytest.mark.parametrize("what", ["requests", "tokens"])
@pytest.mark.parametrize("seed", [100, 105, 107])
def test_a_client_that_stood_still_as_a_minute_was_used_up_has_all_of_the_next(what: str, seed: int) -> None:
    """What it sent since it stood is no measure of the limit: for long it was closed, and it had sent before."""
    found = run_one("by the minute", what, "plain", told=False, stalls=1.5, seed=seed)
    assert found.goodput >= 0.93
    assert found.per_success <= 1.10


def test_what_waits_in_front_of_a_closed_endpoint_keeps_its_deadline() -> None:
    """No more than about a second's worth is let in to wait: the rest is still in front of the gate when it closes."""
    admission = Admission(Limits(rpm=120), 0.0)
    let_in = 0
    while admission.until_room("a", 0.0) <= 0:
        admission.ask(Ticket("a", 1), 0.0, 20.0)
        let_in += 1
    assert 2 <= let_in <= 6


def test_a_request_that_could_not_be_answered_in_time_does_not_leave() -> None:
    """Where answers take two seconds, whoever has one left is told so, and nothing is sent and paid for in vain."""

    async def ask() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        gate = AdmissionGate(Limits(rpm=600, concurrency=1))
        for _ in range(20):  # of all of which nine in ten took two seconds
            (await gate.enter(Asking("a", 1, 1, {0: 1}), loop.time() + 20))(Ended("served", Tokens(input=1, output=1), 2.0))
        leave = await gate.enter(Asking("a", 1, 1, {0: 1}), loop.time() + 20)
        begun = loop.time()
        with pytest.raises(Refused, match="it was not sent"):
            await gate.enter(Asking("a", 1, 1, {0: 1}), begun + 10)
        waited = loop.time() - begun
        leave(Ended("served", Tokens(input=1, output=1), 2.0))
        return waited, gate.stats.admitted

    waited, admitted = run(ask())
    assert 5 <= waited <= 8
    assert admitted == 21


def test_a_429_takes_from_the_concurrency_only_what_was_in_the_way() -> None:
    """Where the places in flight held nothing back, they were not what was too much."""
    limit = ConcurrencyLimit(64)
    before = limit.limit
    limit.limited(1.0)
    assert limit.limit == before
    limit.held_back()
    limit.limited(1.0)
    assert limit.limit < before


def test_an_endpoint_that_comes_back_is_not_met_by_what_was_saved_meanwhile() -> None:
    """After failures in a row the pace goes on from nothing: fifty a second stay fifty a second, from the first second on."""
    admission, now = Admission(Limits(rpm=3000), 0.0), 0.0
    flying: list[Ticket] = []
    for _ in range(5):
        admission.ask(Ticket("a", 1), now)
        (ticket,) = admission.grant(now)
        admission.ended(ticket, Ended("unavailable"), now)
    sent: list[float] = []
    now = 30.0  # out for half a minute, then the probe
    for number in range(300):
        admission.ask(Ticket("a", 1), now)
        for ticket in admission.grant(now):
            sent.append(now)
            flying.append(ticket)
        if number == 0:
            admission.ended(flying.pop(), Ended("served", Tokens(input=1, output=1), 0.1), now)
        now += 0.01
        while flying:
            admission.ended(flying.pop(), Ended("served", Tokens(input=1, output=1), 0.1), now)
    assert max(sum(at <= other < at + 1 for other in sent) for at in sent) <= 1.1 * 50 + 1
