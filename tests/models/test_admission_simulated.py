"""Admission against simulated providers: what share of a limit is used, in how many requests. Virtual time, one seed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from models.gates.admission import Limits
from tests.support.ratelimited import Client, Kind, Provider, Simulation

MINUTES = 20


def run(kind: Kind, what: str, rpm: int, *, told: bool, said: bool, change: str, seed: int = 7) -> tuple[float, float]:
    """(What was decided / what the limit admits beside others, requests per success), a client that always has more to ask.

    The slower server saves five seconds of its limit: with one second it would hold a single request, and each early by a
    millisecond would be refused.
    """
    of_requests = what == "requests"
    provider = Provider(
        kind, rpm if of_requests else math.inf, math.inf if of_requests else rpm * 600.0,
        burst=5.0 if rpm < 100 else 1.0, retry_after=said, headers=said,
    )  # fmt: skip
    sim = Simulation(provider, seed)
    limits = Limits(rpm=rpm if told and of_requests else None, tpm=rpm * 600 if told and not of_requests else None)
    client = Client(sim, limits)
    if change == "halved":
        sim.after(MINUTES * 30, lambda: provider.set_limits(0.5, sim.now))
    elif change == "foreign":
        sim.foreign(0.3)
    sim.run(MINUTES * 60)
    done = client.served + client.admission.in_flight
    if of_requests:
        return done / (provider.admissible - provider.foreign), client.sent / done
    return client.tokens / (provider.admissible_tokens - 500 * provider.foreign), client.sent / done


@pytest.mark.parametrize("change", ["plain", "halved", "foreign"])
@pytest.mark.parametrize("said", [False, True], ids=["silent", "hints"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("rpm", [60, 600])
@pytest.mark.parametrize("what", ["requests", "tokens"])
@pytest.mark.parametrize("kind", ["evenly", "by the minute"])
def test_a_limit_is_used_and_not_overrun(kind: Kind, what: str, rpm: int, told: bool, said: bool, change: str) -> None:
    """Saturated for 20 minutes: told: 0.97 in 1.03 requests a success; untold, or told what is not so: 0.93 in 1.10."""
    used, per_success = run(kind, what, rpm, told=told, said=said, change=change)
    exact = told and change == "plain"
    # The one that misses: under half a request a second is left beside the other client, and leftovers let small probes through.
    misses = (kind, what, rpm, told, said, change) == ("by the minute", "tokens", 60, False, False, "foreign")
    assert used >= (0.97 if exact else 0.93)
    assert per_success <= (1.03 if exact else 1.15 if misses else 1.10)


@pytest.mark.parametrize("kind", ["evenly", "by the minute"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_two_workers_share_an_account_while_load_is_skewed_and_partitions_move(kind: Kind, told: bool) -> None:
    """Two agents, each on both workers with its part of the partitions, which moves three times: goodput, and hardly a 429."""
    provider = Provider(kind, rpm=600)
    sim = Simulation(provider)
    limits = Limits(rpm=600 if told else None)
    workers = [Client(sim, limits, {"a": None, "b": None}) for _ in range(2)]

    def assign(a: float, b: float) -> None:
        for worker, parts in zip(workers, ((a, b), (1 - a, 1 - b)), strict=True):
            worker.share("a", 0.7 * parts[0])
            worker.share("b", 0.3 * parts[1])

    assign(0.5, 0.5)
    sim.after(300, lambda: assign(0.75, 0.25))
    sim.after(600, lambda: assign(1.0, 0.5))
    sim.after(900, lambda: assign(0.25, 0.75))
    sim.run(1200)
    served = sum(worker.served for worker in workers)
    assert served / provider.admissible >= (0.97 if told else 0.93)
    assert sum(worker.sent for worker in workers) / served <= (1.03 if told else 1.10)
    if told:
        by_a = sum(worker.by_agent["a"] for worker in workers)
        assert 0.66 <= by_a / served <= 0.74


def test_what_one_agent_leaves_unused_is_lent_only_where_that_is_allowed() -> None:
    """An agent with half the account and hardly a question: the other has half of it, or with `lend` nearly all."""
    served = {}
    for lend in (False, True):
        sim = Simulation(Provider("evenly", rpm=600))
        client = Client(sim, Limits(rpm=600, lend=lend), {"busy": None, "calm": 0.5})
        client.share("busy", 0.5)
        client.share("calm", 0.5)
        sim.run(600)
        served[lend] = client.by_agent["busy"]
        assert client.by_agent["calm"] >= 0.9 * 0.5 * 600 * 0.9
    assert 0.95 <= served[False] / 3000 <= 1.02
    assert served[True] / 3000 >= 1.8


def test_an_agent_without_partitions_gets_nothing_and_the_other_its_own_part() -> None:
    """A share of nothing admits nothing, and lends nothing."""
    sim = Simulation(Provider("evenly", rpm=600))
    client = Client(sim, Limits(rpm=600), {"a": None, "b": None})
    client.share("a", 0.0)
    client.share("b", 0.5)
    sim.run(300)
    assert client.by_agent["a"] == 0
    assert 0.95 <= client.by_agent["b"] / 1500 <= 1.02


def test_a_hint_of_hours_is_asked_again_after_a_minute() -> None:
    """Retry-After of a day: one probe a minute, and the pace is back once the endpoint admits again."""
    provider = Provider("evenly", rpm=600, retry_after=True)
    provider.wait = lambda tokens, now: 86_400.0  # type: ignore[method-assign]  # an endpoint that says so
    sim = Simulation(provider)
    client = Client(sim, Limits(rpm=600))
    sim.after(100, lambda: provider.set_limits(1e-9, sim.now))

    def recover() -> None:
        provider.set_limits(1e9, sim.now)
        provider.retry_after = False

    sim.after(700, recover)
    sim.run(900)
    probes = [at for at, _ in client.sent_at if 110 <= at < 690]
    assert 8 <= len(probes) <= 11
    assert all(later - earlier >= 59 for earlier, later in pairwise(probes))
    assert sum(at >= 800 for at, _ in client.sent_at) >= 500  # of 1,000
