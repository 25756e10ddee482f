"""The retry budget: an endpoint in trouble is not sent a multiple of what it failed to answer."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from models.gates.retry_budget import FLOOR_PER_SECOND, MOST_SAVED, SHARE, RetryBudget
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.scoring import chat, questions, soon, statuses


@given(steps=st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300))
def test_retries_stay_within_their_share_of_the_traffic(steps: list[tuple[float, bool]]) -> None:
    """Whatever comes when: a tenth of the requests, the floor, and what may be saved up."""
    budget, now = RetryBudget(0.0), 0.0
    for pause, retry in steps:
        now += pause
        if retry:
            budget.may_retry(now)
        else:
            budget.sent(now)
        stats = budget.stats
        assert stats.retried <= SHARE * stats.sent + FLOOR_PER_SECOND * now + MOST_SAVED + 1e-6


def test_a_quiet_stream_may_retry_and_a_busy_one_in_an_outage_may_not_for_long() -> None:
    """One failure a minute is always retried; of a thousand in a second few are."""
    budget = RetryBudget(0.0)
    for minute in range(50):
        budget.sent(60.0 * minute)
        assert budget.may_retry(60.0 * minute)
    before = budget.stats.retried
    for _ in range(1000):
        budget.sent(3000.0)
        budget.may_retry(3000.0)
    assert budget.stats.retried - before <= MOST_SAVED + 1000 * SHARE


async def test_over_http_a_retry_earns_no_retry() -> None:
    """What is sent again counts as sent once: each of ten calls that fail puts a tenth of a retry in, whatever was tried."""
    async with Sandbox(SandboxConfig(faults={"503": 1.0})) as server:
        scorer = chat(server.base_url)
        for _ in range(10):
            await scorer.score(questions(1), soon(60))
        await scorer.close()
        budget = scorer._line.retry_budget
        assert budget is not None
        assert budget.stats.sent == 10
        assert budget.stats.retried == server.meter.requests - 10 > 0


async def test_over_http_an_outage_is_sent_little_more_than_the_requests_themselves() -> None:
    """Without a breaker: three hundred calls into an endpoint that fails are not nine hundred requests."""
    async with Sandbox(SandboxConfig(faults={"503": 1.0})) as server:
        scorer = chat(server.base_url)
        rounds = await asyncio.gather(*(scorer.score(questions(1), soon(60)) for _ in range(300)))
        await scorer.close()
        assert server.meter.requests <= 300 * (1 + SHARE) + MOST_SAVED + 30 * FLOOR_PER_SECOND
    assert {status for answers in rounds for status in statuses(answers)} == {"unavailable"}
