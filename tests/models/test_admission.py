"""Admission against a second simulated provider, written apart from the first: what is tuned on one must hold on the other."""

from __future__ import annotations

import math
import random
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gates.admission import Admission, Limits, Ticket
from models.gates.gate import Ended
from schemas.audit import Tokens
from tests.support.provider import TOKENS, Client, Provider, simulate

MINUTES = 20
Kind = Literal["bucket", "minute"]


def run(provider: Provider, limits: Limits, scenario: str) -> tuple[float, float]:
    """Share of what the limit admits that was served, and requests per success; a foreign client's part is not ours."""
    client = Client(Admission(limits, 0.0))
    events = [(MINUTES * 30.0, lambda now: provider.change(now, 0.5))] if scenario == "halved" else []
    foreign = 0.3 if scenario == "foreign" else 0.0
    simulate(provider, [client], MINUTES * 60.0, events=events, foreign=foreign)
    reserved = 1.5 if provider.charges == "reserved" and provider.tpm < math.inf else 1.0
    return client.done * reserved / (provider.admissible * (1 - foreign)), (client.done + client.refused) / client.done


@pytest.mark.parametrize("scenario", ["plain", "halved", "foreign"])
@pytest.mark.parametrize("hints", [False, True], ids=["no hints", "Retry-After"])
@pytest.mark.parametrize("kind", ["bucket", "minute"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("rpm", [600, 3000])
def test_a_limit_of_requests_is_used_and_not_overrun(rpm: int, told: bool, kind: Kind, hints: bool, scenario: str) -> None:
    """Saturated for 20 minutes: evenly refilled or by the minute, the limit halved after ten, another client taking 30 %."""
    used, per_success = run(Provider(rpm, kind, hints=hints), Limits(rpm=rpm if told else None), scenario)
    assert used >= (0.97 if told else 0.93)
    assert per_success <= (1.03 if told else 1.10)


@pytest.mark.parametrize("scenario", ["plain", "halved"])
@pytest.mark.parametrize("charges", ["used", "reserved"])
@pytest.mark.parametrize("kind", ["bucket", "minute"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_a_limit_of_tokens_is_used_and_not_overrun(
    told: bool, kind: Kind, charges: Literal["used", "reserved"], scenario: str
) -> None:
    """The same for tokens, whether the endpoint counts what was used or what was reserved."""
    tpm = 600 * TOKENS
    used, per_success = run(Provider(math.inf, kind, tpm=tpm, charges=charges), Limits(tpm=tpm if told else None), scenario)
    assert used >= (0.97 if told else 0.93)
    assert per_success <= (1.03 if told else 1.10)


def test_two_agents_on_two_workers_share_an_account_by_weight_and_partitions() -> None:
    """One has three quarters of the partitions at first and one afterwards; the account is used whole and hardly overrun."""
    provider = Provider(1200, "bucket")
    workers = [Client(Admission(Limits(rpm=1200), 0.0), agents=("a", "b")) for _ in range(2)]

    def assign(first: float) -> Any:
        def change(now: float) -> None:
            for worker, part in zip(workers, (first, 1 - first), strict=True):
                worker.admission.share("a", 0.75 * part, now)
                worker.admission.share("b", 0.25 * part, now)

        return change

    assign(0.75)(0.0)
    simulate(provider, workers, 600.0, events=[(300.0, assign(0.25))])
    done = [worker.done for worker in workers]
    assert sum(done) / provider.admissible >= 0.97
    assert (sum(done) + sum(worker.refused for worker in workers)) / sum(done) <= 1.03
    assert done[0] / done[1] == pytest.approx(1.0, abs=0.1)
    for worker in workers:
        assert worker.by_agent["a"] / worker.by_agent["b"] == pytest.approx(3.0, abs=0.3)


def test_an_agent_without_partitions_gets_nothing_and_the_others_keep_their_part() -> None:
    """A share of zero is not a share of what is left."""
    admission = Admission(Limits(rpm=600), 0.0)
    admission.share("a", 0.5, 0.0)
    admission.share("b", 0.0, 0.0)
    for _ in range(50):
        admission.ask(Ticket("a", 1), 0.0)
        admission.ask(Ticket("b", 1), 0.0)
    now, granted = 0.0, list[Ticket]()
    while now < 10.0:
        for ticket in admission.grant(now):
            granted.append(ticket)
            admission.ended(ticket, Ended("served", Tokens(input=1), 0.1), now)
        now += 0.05
    assert {ticket.agent for ticket in granted} == {"a"}
    assert 48 <= len(granted) <= 56
    assert admission.until_room("b", now) > 0


@settings(max_examples=60, deadline=None)
@given(
    rpm=st.integers(60, 6000), tpm=st.integers(60_000, 6_000_000), burst=st.floats(0.05, 2.0), seed=st.integers(0, 2**32),
    most=st.integers(1, 80),
)  # fmt: skip
def test_told_limits_are_kept_in_every_stretch_of_time(rpm: int, tpm: int, burst: float, seed: int, most: int) -> None:
    """Whatever comes when: requests, reserved tokens and requests in flight stay within limit and burst; nothing is lost."""
    drawn = random.Random(seed)
    admission = Admission(Limits(rpm=rpm, tpm=tpm, concurrency=most, burst_seconds=burst), 0.0)
    now, asked, sent, flying = 0.0, 0, list[tuple[float, int]](), list[Ticket]()
    while now < 20.0 or admission.waiting():
        if now < 20.0:
            for _ in range(drawn.randrange(4)):
                admission.ask(Ticket("a", drawn.randrange(1, 3000)), now)
                asked += 1
        for ticket in admission.grant(now):
            sent.append((now, ticket.tokens))
            flying.append(ticket)
        assert admission.in_flight == len(flying) <= most
        while flying and drawn.random() < 0.7:
            ticket = flying.pop(drawn.randrange(len(flying)))
            used = Tokens(input=ticket.tokens)  # all of what was reserved: nothing comes back
            admission.ended(ticket, Ended("served", used, 0.1), now)
        now += drawn.random() * 0.2
        assert now < 3600 * 4
    assert len(sent) == asked
    requests, tokens = max(1.0, rpm / 60 * burst), tpm / 60 * burst
    largest = max((cost for _, cost in sent), default=0)
    for first in range(0, len(sent), 7):
        begin, cost = sent[first][0], 0
        for count, (at, took) in enumerate(sent[first:], 1):
            cost += took
            assert count <= requests + (at - begin) * rpm / 60 + 1e-6
            assert cost <= tokens + (at - begin) * tpm / 60 + largest + 1e-6
