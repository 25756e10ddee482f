"""Hedging: a second request past the usual time cuts the tail, inside a share of the tokens, and never while limits shrink."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.budget.budget import Budget
from models.budget.budget_gate import BudgetGate
from models.budget.prices import Price
from models.chat.call_draft import CallDraft
from models.chat.hedge import LEAST_EVIDENCE, Hedge
from models.chat.hedging import Hedging
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from models.gates.gate import Asking, Ended
from models.gates.slots import Slots
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call, Tokens
from tests.support.scoring import ASK, chat, questions, soon, statuses

DAY = "2026-05-01"
SLOW = 0.2
"""Seconds after which a request is slow in these tests: many times what the sandbox takes, also on a busy machine."""


def hedging(**options: Any) -> Hedging:
    """One that has seen requests of this size take that long, and has some hedges saved up."""
    hedge = Hedge(share=0.5)
    for _ in range(200):
        hedge.ended(ASK.reserved(2), SLOW)
    for _ in range(20):
        hedge.sent(1000)
    return Hedging(hedge, **options)


def hanging(*places: int) -> tuple[str, ...]:
    """The schedule of a sandbox that lets these requests hang."""
    return tuple("hang" if place in places else "" for place in range(max(places) + 1))


async def one_by_one(scorer: Any, count: int, seconds: float = 60) -> list[str]:
    """So many calls of two records each, one after the other; how each ended."""
    said: list[str] = []
    for _ in range(count):
        said += set(statuses(await scorer.score(questions(2), soon(seconds))))
    return said


async def test_what_hangs_is_answered_by_a_second_request_and_both_are_in_the_audit() -> None:
    """The first good answer wins, the other call is cut off and says of which it is the hedge; without hedging it is lost."""
    calls: list[Call] = []
    made = hedging()
    async with Sandbox(SandboxConfig(schedule=hanging(0))) as server:
        scorer = chat(server.base_url, calls, hedging=made)
        answers = await scorer.score(questions(2), soon(60))
        assert len(calls) == 2
        await scorer.close()
        requests = server.meter.requests
    assert statuses(answers) == ["answered"] * 2
    won, lost = calls
    assert requests == 2
    assert (lost.status, lost.hedge_of, won.status, won.hedge_of) == ("cancelled", None, "ok", lost.call_id)
    assert lost.error == f"call {won.call_id} was answered first"
    assert {answer.call_id for answer in answers} == {won.call_id}
    assert (lost.request_hash, lost.records, lost.shuffle_seed) == (won.request_hash, won.records, won.shuffle_seed)
    assert won.queued_at == lost.queued_at
    async with Sandbox(SandboxConfig(schedule=hanging(0))) as server:
        scorer = chat(server.base_url)
        assert await one_by_one(scorer, 1, 0.5) == ["timeout"]
        assert server.meter.requests == 1
        await scorer.close()


async def test_a_race_is_over_when_the_loser_is() -> None:
    """Its Call is made when it ends, and closing a connection may take a while: whoever asked is told after that, not before."""
    ended: list[str | None] = []

    async def send(draft: CallDraft) -> str:
        draft.leave(0, asyncio.get_running_loop().time(), 100)
        try:
            if draft.hedge_of is None:
                await asyncio.sleep(60)
            return "answer"
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            raise
        finally:
            ended.append(draft.hedge_of)

    first = CallDraft(1, 0)
    found, draft = await hedging().race(send, first, ASK.reserved(2), soon(60), lambda: True)
    assert (found, draft.hedge_of) == ("answer", first.call_id)
    assert ended == [first.call_id, None]


async def test_a_tail_of_slow_answers_is_cut_and_the_share_is_kept() -> None:
    """One request in thirty hangs: all are answered, and the server counts no more requests than the share allows."""
    made = Hedging(Hedge(share=0.3))
    async with Sandbox(SandboxConfig(latency="lognormal:2ms:1.0", schedule=hanging(*range(30, 400, 30)))) as server:
        scorer = chat(server.base_url, hedging=made)
        asked = 240
        assert await one_by_one(scorer, asked) == ["answered"] * asked
        await scorer.close()
        assert server.meter.faults["hang"] >= 5
        assert asked + 5 <= server.meter.requests <= asked + made.hedge.stats.hedged <= asked * 1.3
    assert made.hedge.stats.hedge_tokens <= 0.3 * made.hedge.stats.tokens


async def test_a_share_of_nothing_hedges_nothing() -> None:
    """The budget holds whatever hangs."""
    made = Hedging(Hedge(share=0.0))
    for _ in range(200):
        made.hedge.ended(ASK.reserved(2), 0.05)
    async with Sandbox(SandboxConfig(schedule=hanging(3))) as server:
        scorer = chat(server.base_url, hedging=made)
        assert await one_by_one(scorer, 3) == ["answered"] * 3
        assert await one_by_one(scorer, 1, 0.5) == ["timeout"]
        assert server.meter.requests == 4
        await scorer.close()


async def test_nothing_is_hedged_after_a_429() -> None:
    """The account is short of requests: a second one would take them from records that have had none."""
    made = hedging()
    async with Sandbox(SandboxConfig(schedule=("429", "", "hang"))) as server:
        scorer = chat(server.base_url, hedging=made)
        assert await one_by_one(scorer, 1) == ["answered"]
        assert await one_by_one(scorer, 1, 0.9) == ["timeout"]
        assert server.meter.requests == 3  # the 429, the same again, and the one that hangs
        await scorer.close()


@pytest.mark.parametrize("why", ["no room", "slower", "not steady", "comparison", "deadline"])
async def test_nothing_is_hedged_that_would_take_from_others_or_come_too_late(why: str) -> None:
    """Not while the line is full, slows down or comes back, not for a comparison, not where half of all would be too late."""
    made = hedging(steady=lambda: why != "not steady")
    admission = AdmissionGate(Limits(rpm=6 if why == "no room" else None, concurrency=4))
    asked = [replace(question, purpose="canary" if why == "comparison" else "decision") for question in questions(2)]
    if why == "deadline":
        for _ in range(200):
            made.hedge.ended(ASK.reserved(2), 0.5)
    if why == "slower":
        for seconds in (0.1,) * 32 + (1.0,) * 32:
            leave = await admission.enter(Asking("other", 100, 20, Counter()), soon(60))
            leave(Ended("served", Tokens(input=80, output=20), seconds))
    waited: list[int] = []
    async with Sandbox(SandboxConfig(schedule=hanging(0, 1))) as server:
        scorer = chat(server.base_url, hedging=made, gates=(admission,), pacer=admission)
        asking = asyncio.ensure_future(scorer.score(asked, soon(0.9)))
        while not asking.done():
            waited.append(admission.stats.queue)
            await asyncio.sleep(0.02)
        assert statuses(await asking) == ["timeout"] * 2
        assert server.meter.requests == 1
        assert not any(waited)
        await scorer.close()


async def test_nothing_is_hedged_of_which_one_record_has_to_spare() -> None:
    """A partition whose budget runs short has its slow request waited for; beside it, one of others is repeated."""
    budget = Budget(2000, soft=0.5)
    budget.take(0, 2, {DAY: 499})
    budget.take(1, 2, {DAY: 500})
    made = hedging(spare=lambda question: not budget.thrifty(question.partition, DAY))
    rich, both = ([replace(question, partition=n * part) for n, question in enumerate(questions(2))] for part in (0, 1))
    async with Sandbox(SandboxConfig(schedule=hanging(0, 1))) as server:
        scorer = chat(server.base_url, hedging=made)
        assert statuses(await scorer.score(both, soon(0.8))) == ["timeout"] * 2
        assert server.meter.requests == 1
        assert statuses(await scorer.score(rich, soon(60))) == ["answered"] * 2
        assert server.meter.requests == 3
        await scorer.close()


async def test_one_request_is_hedged_once_and_not_when_it_is_sent_again() -> None:
    """Where the hedge hangs too there is no third; where the hedge fails the first is waited for."""
    calls: list[Call] = []
    made = hedging()
    async with Sandbox(SandboxConfig(schedule=("hang", "hang", "hang", "500", ""))) as server:
        scorer = chat(server.base_url, calls, hedging=made)
        assert await one_by_one(scorer, 1, 0.8) == ["timeout"]
        assert server.meter.requests == 2
        assert await one_by_one(scorer, 1, 0.8) == ["timeout"]
        await scorer.close()
    assert [(call.status, call.hedge_of is None) for call in calls] == [
        ("timeout", True), ("timeout", False), ("unavailable", False), ("timeout", True),
    ]  # fmt: skip


async def test_a_hedge_that_costs_more_than_is_left_stays_and_a_lost_call_costs_in_full() -> None:
    """The budget of the day holds for both: what was cut off counts as reserved, and all that is spent stands in the calls."""
    price = Price(1_000_000, 1_000_000, 1_000_000)
    budget, calls = Budget(10_000_000), list[Call]()
    budget.take(0, 1, {})
    gates = (BudgetGate({"test": budget}, price, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(schedule=hanging(1, 3, 4))) as server:
        scorer = chat(server.base_url, calls, hedging=hedging(), gates=gates, price=price)
        assert await one_by_one(scorer, 2) == ["answered"] * 2
        _, won, lost = calls
        assert (lost.cost_micro or 0) > max(lost.tokens_reserved, won.cost_micro or 0)
        budget.take(0, 1, {DAY: budget.limit - int(1.5 * (lost.cost_micro or 0))})  # enough for one, not for two
        del calls[:]
        before = budget.total(DAY)
        assert await one_by_one(scorer, 1, 0.8) == ["timeout"]
        assert len(calls) == 1
        assert sum(call.cost_micro or 0 for call in calls) == budget.total(DAY) - before
        await scorer.close()


async def test_what_was_cut_off_for_its_hedge_opens_no_breaker() -> None:
    """It says nothing of the endpoint; a dozen in a row are a dozen answers."""
    breaker = BreakerGate("there")
    made = hedging()
    async with Sandbox(SandboxConfig(schedule=("hang", "") * 8)) as server:
        scorer = chat(server.base_url, hedging=made, gates=(breaker, Slots(8, lambda: 0.01)))
        assert await one_by_one(scorer, 8) == ["answered"] * 8
        await scorer.close()
    assert breaker.stats.opened == 0
    assert not any(bad for _, bad in breaker.breaker._seen)


async def test_whoever_gives_up_the_question_gives_up_both_requests() -> None:
    """A scorer that is cancelled leaves nothing under way at the endpoint, and each request is a Call."""
    calls: list[Call] = []
    made = hedging()
    async with Sandbox(SandboxConfig(schedule=hanging(0, 1))) as server:
        scorer = chat(server.base_url, calls, hedging=made)
        asked = asyncio.ensure_future(scorer.score(questions(2), soon(60)))
        async with asyncio.timeout(30):
            while not made.hedge.stats.hedged:  # noqa: ASYNC110  # another part's counter, looked at from outside
                await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.wait((asked,))
        assert asked.cancelled()
        assert [call.status for call in calls] == ["cancelled"] * 2
        await scorer.close()


# ---- the measure itself, in virtual time -------------------------------------------------------------------------------
def tails(share: float, count: int, seed: int = 3) -> tuple[list[float], Hedge]:
    """How long each of `count` requests took, one in forty of them twenty times as long as usual, hedged within `share`."""
    chance = random.Random(seed)
    hedge, took = Hedge(share=share), list[float]()

    def draw() -> float:
        return chance.lognormvariate(-1, 0.3) * (20 if chance.random() < 1 / 40 else 1)

    for _ in range(count):
        tokens = chance.randint(500, 1500)
        alone, size = draw(), 352
        hedge.sent(tokens)
        delay = hedge.delay(size)
        if delay is not None and alone > delay and hedge.take(tokens):
            hedge.left(tokens)
            second = draw()
            seconds = min(alone, delay + second)
            if second + delay < alone:
                hedge.ended(size, second)
        else:
            seconds = alone
        hedge.ended(size, seconds)
        took.append(seconds)
    return took, hedge


@pytest.mark.parametrize("seed", range(5))
def test_a_twentieth_of_the_tokens_cuts_most_of_the_tail(seed: int) -> None:
    """Of the requests that are many times slower than usual, three in four are gone for 5 % of the tokens more."""
    alone, _ = tails(0.0, 5000, seed)
    hedged, hedge = tails(0.05, 5000, seed)
    slow = 3.0  # the usual is below one; 20 times of it is above three
    assert sum(seconds > slow for seconds in alone) > 80
    assert sum(seconds > slow for seconds in hedged) < sum(seconds > slow for seconds in alone) / 4
    assert 0 < hedge.stats.hedge_tokens <= 0.05 * hedge.stats.tokens


def test_hedging_does_not_make_its_own_measure_shorter() -> None:
    """What was given up counts as slow: the delay at the end is the one that it is without any hedge."""
    _, never = tails(0.0, 4000)
    _, often = tails(1.0, 4000)
    assert often.delay(352) == pytest.approx(never.delay(352), rel=0.25)


def test_sizes_are_measured_apart_and_nothing_is_hedged_on_little_evidence() -> None:
    """A large batch is not slow because small ones are quick."""
    hedge = Hedge()
    for number in range(LEAST_EVIDENCE):
        assert hedge.delay(100) is None
        hedge.ended(100, 1.0 + number / 1000)
    assert hedge.delay(100) == pytest.approx(1.019)
    assert hedge.delay(127) == hedge.delay(100)
    assert hedge.delay(1000) is None
    assert hedge.usual(1000) == 0.0
    for _ in range(300):
        hedge.ended(100, 5.0)
    assert hedge.delay(100) == hedge.usual(100) == 5.0, "what was long ago is forgotten"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["sent", "take", "refused"]), st.integers(1, 100_000))), st.floats(0, 1))
def test_hedges_never_reserve_more_than_their_share(steps: list[tuple[str, int]], share: float) -> None:
    """Whatever the order of requests and hedges, and however many hedges were paid for and did not leave."""
    hedge = Hedge(share=share)
    for what, tokens in steps:
        if what == "sent":
            hedge.sent(tokens)
        elif hedge.take(tokens):
            if what == "take":
                hedge.left(tokens)
            else:
                hedge.give_back(tokens)
        assert hedge.stats.hedge_tokens <= share * hedge.stats.tokens * (1 + 1e-9)
