"""Admission keeps what it promises whatever comes: order, limits, tickets, reservations."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.gates.admission import Admission, Limits, Ticket
from models.gates.gate import Ended
from models.gates.pace import Pace
from schemas.audit import Tokens

_SIZES = st.integers(1, 3000)


@given(
    st.floats(0.1, 50),
    st.floats(10, 5000),
    st.floats(0.1, 5),
    st.lists(st.tuples(_SIZES, st.floats(0, 3)), min_size=1, max_size=60),
)
def test_no_window_admits_more_than_the_told_limits_and_the_burst(
    requests: float, tokens: float, seconds: float, steps: list[tuple[int, float]]
) -> None:
    """Between any two admissions: at most the rate times the time, the burst, and for tokens the one request that owes."""
    pace, now = Pace(requests, tokens, seconds, 0.0), 0.0
    sent: list[tuple[float, int]] = []
    for size, pause in steps:
        now += pause
        if pace.wait(size, now) <= 0:
            pace.take(size, now)
            sent.append((now, size))
    for first in range(len(sent)):
        total = 0
        for last in range(first, len(sent)):
            passed = sent[last][0] - sent[first][0]
            assert last - first + 1 <= requests * passed + max(1.0, requests * seconds) + 1e-3
            assert total <= tokens * passed + tokens * seconds + 1.0  # what was taken before the last one
            total += sent[last][1]


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "wait"]), st.integers(0, 5000), st.floats(0, 5))))
def test_giving_back_never_saves_more_than_the_burst(steps: list[tuple[str, int, float]]) -> None:
    """However much is given back, no more is at hand than can be saved; what is owed is paid before anything is."""
    pace, now = Pace(2.0, 100.0, 3.0, 0.0), 0.0
    for what, tokens, pause in steps:
        now += pause
        if what == "take":
            pace.take(tokens, now)
        elif what == "give":
            pace.give_back(tokens, now, requests=1.0)
        requests_left, tokens_left = pace.saved
        assert requests_left <= 6.0
        assert tokens_left <= 300.0
        assert pace.wait(tokens, now) >= 0.0


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "again", "end", "limit", "unsent", "drop", "pass"]), st.integers(0, 5), _SIZES),
        max_size=120,
    ),
    st.booleans(),
)
def test_no_ticket_is_lost_and_the_order_is_kept(steps: list[tuple[str, int, int]], told: bool) -> None:
    """Every ticket is waiting, in flight or over; within an agent first come first served, those that come again before all."""
    limits = Limits(rpm=120 if told else None, tpm=60_000 if told else None, concurrency=4)
    admission, now = Admission(limits, 0.0), 0.0
    waiting: dict[str, list[Ticket]] = {"a": [], "b": []}
    gone: list[Ticket] = []
    for what, number, tokens in steps:
        now += 0.1 * number
        agent = "ab"[number % 2]
        if what in ("ask", "again"):
            ticket = Ticket(agent, tokens, again=what == "again")
            admission.ask(ticket, now)
            waiting[agent].insert(0 if ticket.again else len(waiting[agent]), ticket)
        elif what == "drop" and waiting[agent]:
            admission.drop(waiting[agent].pop())
        elif what in ("end", "limit", "unsent") and gone:
            served = Ended("served", Tokens(input=tokens // 2, output=3), 1.0)
            kinds = {"end": served, "limit": Ended("limited"), "unsent": Ended("unsent")}
            admission.ended(gone.pop(number % len(gone)), kinds[what], now)
        for ticket in admission.grant(now):
            assert waiting[ticket.agent].pop(0) is ticket
            gone.append(ticket)
        assert admission.waiting() == sum(map(len, waiting.values()))
        assert admission.in_flight == len(gone) <= 4
        assert admission.stats.reserved_tokens == sum(ticket.tokens for ticket in gone)
    for _ in range(3000):
        for ticket in [*gone]:
            gone.remove(ticket)
            admission.ended(ticket, Ended("served", Tokens(input=1, output=1), 0.1), now)
        granted = admission.grant(now)
        for ticket in granted:
            assert waiting[ticket.agent].pop(0) is ticket
        gone.extend(granted)
        if not admission.waiting():
            break
        due = admission.next_at(now)
        assert granted or due is not None
        now = max(now + 1e-3, due or 0.0)
    assert not admission.waiting()
