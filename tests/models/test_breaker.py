"""The breaker: which ends open it, who probes, how it comes back, and what an outage of a minute costs."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.gates.breaker import HOPELESS_PAUSE, IN_A_ROW, LONGEST_PAUSE, WINDOW, Breaker
from models.gates.breaker_gate import BreakerGate
from models.gates.gate import Asking, End, Ended, Refused
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import chat, questions, soon, statuses


def half() -> float:
    """A chance that neither shortens nor lengthens a pause."""
    return 0.5


def fails(breaker: Breaker, now: float, *ends: Ended) -> None:
    """So many requests one after the other."""
    for ended in ends:
        breaker.left(ended, now, entered(breaker, now))


def forbidden(*ids: str) -> Ended:
    return Ended("rejected", status=403, about=frozenset(ids))


def entered(breaker: Breaker, now: float) -> int:
    """The era of a request that passes."""
    era = breaker.enter(now)
    assert era is not None
    return era


@pytest.mark.parametrize("kind", ["unavailable", "timeout", "protocol"])
def test_five_failures_in_a_row_open_it(kind: End) -> None:
    """And four do not."""
    breaker = Breaker(half)
    fails(breaker, 0.0, *[Ended(kind)] * (IN_A_ROW - 1), Ended("served"), *[Ended(kind)] * (IN_A_ROW - 1))
    assert breaker.state == "closed"
    fails(breaker, 0.0, Ended(kind))
    assert (breaker.state, breaker.available(0.9), breaker.available(1.1)) == ("open", False, True)


def test_half_of_the_last_ones_open_it_without_a_row() -> None:
    """Every second request fails."""
    breaker = Breaker(half)
    for number in range(WINDOW + 1):
        assert breaker.state == "closed"
        fails(breaker, 0.1 * number, Ended("served" if number % 2 else "unavailable"))
    assert breaker.state == "open"


@pytest.mark.parametrize("ended", [Ended("exhausted", status=429), *(Ended("rejected", status=s) for s in (401, 403, 404))])
def test_what_no_other_request_would_survive_opens_it_at_once(ended: Ended) -> None:
    """A quota that is used up, a key or a path that is refused."""
    breaker = Breaker(half)
    fails(breaker, 0.0, ended)
    assert breaker.state == "open"


def test_what_is_forbidden_without_a_reason_opens_it_only_if_it_recurs_for_other_records() -> None:
    """The same record again and again is its own fault, alone too; five records that are forbidden alone are the endpoint's."""
    breaker = Breaker(half)
    for _ in range(2 * WINDOW):
        fails(breaker, 0.0, forbidden("a", "b"), forbidden("a"), Ended("served"))
    fails(breaker, 0.0, *(forbidden("c") for _ in range(2 * WINDOW)))
    assert breaker.stats.opened == 0
    fails(breaker, 0.0, *(forbidden(f"r{n}") for n in range(IN_A_ROW - 1)))
    assert breaker.state == "open"


def test_poisons_of_many_batches_at_once_open_nothing() -> None:
    """Firewalls are quick: all batches are forbidden, and a half of each, before the first healthy half is served."""
    breaker = Breaker(half)
    batches = [tuple(f"{batch}{place}" for place in "abcd") for batch in range(30)]
    fails(breaker, 0.0, *(forbidden(*batch) for batch in batches))
    fails(breaker, 0.0, *(forbidden(*batch[:2]) for batch in batches))
    fails(breaker, 0.0, *(Ended("served") for _ in batches))
    for batch in batches:
        fails(breaker, 0.0, forbidden(batch[0]), Ended("served"))
    assert (breaker.state, breaker.stats.opened) == ("closed", 0)


def test_an_endpoint_that_forbids_everything_is_left_alone() -> None:
    """Five batches of which the whole and both halves were forbidden, while nobody was served."""
    breaker = Breaker(half)
    for batch in range(IN_A_ROW):
        assert breaker.state == "closed"
        fails(breaker, 0.0, forbidden(f"{batch}a", f"{batch}b"), forbidden(f"{batch}a"), forbidden(f"{batch}b"))
    assert breaker.state == "open"


@pytest.mark.parametrize(
    "ended",
    [
        Ended("limited", status=429), *(Ended("rejected", status=s) for s in (400, 422, 307)), Ended("unsent"),
        Ended("cancelled"),
    ],
)  # fmt: skip
def test_what_says_nothing_about_the_endpoint_never_opens_it(ended: Ended) -> None:
    """A 429 least of all."""
    breaker = Breaker(half)
    fails(breaker, 0.0, *[ended] * 100)
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended("timeout"), [1, LONGEST_PAUSE, LONGEST_PAUSE]),
        (Ended("unavailable"), [1, LONGEST_PAUSE, LONGEST_PAUSE]),
        (Ended("rejected", status=401), [1, 2, 4, 8, 16, HOPELESS_PAUSE, HOPELESS_PAUSE]),
        (Ended("exhausted", status=429), [1, 2, 4, 8, 16, HOPELESS_PAUSE, HOPELESS_PAUSE]),
    ],
)
def test_pauses_stay_short_in_an_outage_grow_where_a_person_is_needed_and_start_anew(ended: Ended, expected: list[float]) -> None:
    """One probe each time; an outage is noticed to be over within seconds."""
    breaker, now, pauses = Breaker(half), 0.0, list[float]()
    fails(breaker, now, *[Ended("timeout")] * (IN_A_ROW - 1), ended)
    for _ in expected:
        pauses.append(breaker.until - now)
        now = breaker.until
        era = entered(breaker, now)
        assert breaker.enter(now) is None
        breaker.left(ended, now, era)
    assert pauses == expected
    assert LONGEST_PAUSE * 1.25 <= 2.5
    now = breaker.until
    for _ in range(200):
        if breaker.available(now):
            breaker.left(Ended("served"), now, entered(breaker, now))
    assert breaker.state == "closed"
    fails(breaker, now, *[Ended("timeout")] * IN_A_ROW)
    assert breaker.until - now == 1


@pytest.mark.parametrize("ended", [Ended("unsent"), Ended("limited")])
def test_a_probe_that_says_nothing_is_replaced_by_the_next(ended: Ended) -> None:
    """A cancelled or limited probe keeps the breaker neither open nor shut."""
    breaker = Breaker(half)
    fails(breaker, 0.0, *[Ended("timeout")] * IN_A_ROW)
    breaker.left(ended, 2.0, entered(breaker, 2.0))
    breaker.left(Ended("served"), 2.1, entered(breaker, 2.0))
    assert breaker.state == "slow start"


@pytest.mark.parametrize("late", [Ended("served"), Ended("limited"), Ended("timeout"), Ended("exhausted"), Ended("unsent")])
def test_only_the_probe_itself_says_how_the_endpoint_is(late: Ended) -> None:
    """Twelve were under way when five failed: how the other seven end neither opens, shuts nor replaces the probe."""
    breaker = Breaker(half)
    before = [entered(breaker, 0.0) for _ in range(12)]
    for era in before[:5]:
        breaker.left(Ended("unavailable"), 0.5, era)
    breaker.left(late, 0.6, before[5])
    assert (breaker.state, breaker.until) == ("open", 1.5)
    probe = entered(breaker, 2.0)
    breaker.left(late, 2.1, before[6])
    assert breaker.state == "half open"
    assert breaker.enter(2.1) is None
    breaker.left(Ended("served"), 2.2, probe)
    again = entered(breaker, 2.2)
    for era in before[7:]:
        breaker.left(late, 2.3, era)
    assert (breaker.state, breaker.in_flight, breaker.stats.opened) == ("slow start", 1, 1)
    breaker.left(Ended("timeout"), 2.4, again)
    assert (breaker.state, breaker.in_flight) == ("open", 0)


class Machine(RuleBasedStateMachine):
    """Any order of requests, ends and pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(half)
        self.now = 0.0
        self.flying: list[int] = []

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def enter(self) -> None:
        available = self.breaker.available(self.now)
        was = self.breaker.state
        era = self.breaker.enter(self.now)
        assert (era is not None) is available
        if era is not None:
            self.flying.append(era)
        if was in ("open", "half open") and available:
            assert was == "open"
            assert self.breaker.state == "half open"

    @precondition(lambda self: self.flying)
    @rule(kind=st.sampled_from(get_args(End)), data=st.data())
    def end(self, kind: Any, data: st.DataObject) -> None:
        era = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        before, current = (self.breaker.state, self.breaker.until), era == self.newest
        self.breaker.left(Ended(kind), self.now, era)
        assert current or (self.breaker.state, self.breaker.until) == before

    @property
    def newest(self) -> int:
        """The present era: one more than how often it opened."""
        return 1 + self.breaker.stats.opened

    @invariant()
    def those_in_flight_are_those_of_this_era(self) -> None:
        assert self.breaker.in_flight == self.flying.count(self.newest)

    @invariant()
    def never_shut_for_ever(self) -> None:
        if not self.flying:
            assert self.breaker.available(self.now + 1.25 * HOPELESS_PAUSE + 1)


TestMachine = Machine.TestCase


def test_an_outage_of_a_minute_is_hardly_asked_and_recovered_from_within_five_seconds() -> None:
    """Fifty requests a second are wanted; each takes 200 ms, in the outage 50 ms to fail. Pauses are as long as they get."""
    breaker, log = Breaker(lambda: 0.99), list[tuple[float, str]]()
    heap: list[tuple[float, int, Callable[[float], None]]] = []

    def arrive(now: float) -> None:
        if (era := breaker.enter(now)) is not None:
            out = 60 <= now < 120
            log.append((now, "sent"))
            heapq.heappush(heap, (now + (0.05 if out else 0.2), len(log) + 10**6, lambda then: end(then, out, era)))

    def end(now: float, out: bool, era: int) -> None:
        breaker.left(Ended("unavailable" if out else "served"), now, era)
        if not out:
            log.append((now, "served"))

    for number in range(50 * 180):
        heapq.heappush(heap, (number / 50, number, arrive))
    while heap:
        now, _, what = heapq.heappop(heap)
        what(now)

    def rate(begin: float, seconds: float, kind: str) -> float:
        return sum(begin <= at < begin + seconds for at, what in log if what == kind) / seconds

    assert rate(60.3, 59.7, "sent") * 59.7 <= 35
    assert rate(124.0, 1.0, "served") >= 0.9 * 50
    assert max(rate(120 + 0.5 * step, 1.0, "sent") for step in range(40)) <= 1.1 * 50


async def test_over_http_an_endpoint_that_is_out_is_left_alone_and_the_answer_says_so() -> None:
    """After five failures nothing is sent; the answers name the endpoint and when it is asked again."""
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(faults={"500": 1.0})) as server:
        gate = BreakerGate(server.base_url)
        scorer = chat(server.base_url, calls, gates=[gate])
        for _ in range(3):
            await scorer.score(questions(2), soon(30))
        sent = server.meter.requests
        answers = await scorer.score(questions(2), soon(30))
        await scorer.close()
        assert server.meter.requests == sent == IN_A_ROW
        assert statuses(answers) == ["unavailable"] * 2
        assert server.base_url in answers[0].why
        assert "unavailable" in answers[0].why
    assert not gate.available()


@pytest.mark.parametrize(("fault", "said"), [("null-content", "finish_reason stop"), ("tool-calls", "finish_reason tool_calls")])
async def test_a_completion_without_text_is_the_records_and_never_opens_it(fault: str, said: str) -> None:
    """What one record's text can bring about shuts nobody out; the answer says how the reply ended."""
    async with Sandbox(SandboxConfig(faults={fault: 1.0})) as server:
        gate = BreakerGate(server.base_url)
        scorer = chat(server.base_url, gates=[gate])
        for _ in range(IN_A_ROW):
            (answer,) = await scorer.score(questions(1), soon(30))
        await scorer.close()
    assert (answer.status, gate.breaker.state) == ("invalid", "closed")
    assert said in answer.why


async def test_a_cancelled_probe_leaves_its_place() -> None:
    """Whoever goes away while it probes does not leave the endpoint shut for ever."""
    breaker = Breaker(half)
    fails(breaker, 0.0, *[Ended("timeout")] * IN_A_ROW)
    gate = BreakerGate("there", breaker)
    asking = Asking("a", 1, 1, {0: 1})
    if asyncio.get_running_loop().time() < breaker.until:
        breaker.until = 0.0
    leave = await gate.enter(asking, soon(5))
    with pytest.raises(Refused, match="others are trying it"):
        await gate.enter(asking, soon(5))
    leave(Ended("unsent"))
    (await gate.enter(asking, soon(5)))(Ended("served"))
    assert breaker.state == "slow start"
