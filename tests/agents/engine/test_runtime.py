"""The engine through its public door: records in by slot, outcomes out by record; order, bounds, faults, missing answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agents.engine.spec import Batch, Order
from agents.engine.trial import TrialOutcome, try_records
from models.contract import Answer, Question
from schemas.decision import Decision
from schemas.errors import FatalError
from tests.support.simple_agent import OrderAnswer, OrderFeatures, Scripted, order, simple_agent
from topics.record import Raw


async def outcomes(agent: Any, records: Sequence[Raw], scorer: Any, **more: Any) -> list[TrialOutcome]:
    return [outcome async for outcome in try_records(agent, records, scorer, **more)]


def verdicts(found: list[TrialOutcome]) -> list[Any]:
    return [o.decisions[0]["outcome"] if o.decisions else o.rule or o.kind for o in found]


@pytest.mark.parametrize("how", list(Order))
async def test_one_outcome_each_and_no_key_overtakes_itself(how: Order) -> None:
    """400 records of 7 keys under random answer times: every record once, batches and calls within their bounds."""
    scorer = Scripted(longest=0.01, seed=7)
    agent = simple_agent(scorer, order=how, batch=Batch(5, within="2ms"), in_flight=6)
    records = [order(f"k{i * i % 7}", amount=i, offset=i) for i in range(400)]
    found = await outcomes(agent, records, scorer)
    assert [o.decisions[0]["source"]["offset"] for o in found] == list(range(400))
    assert scorer.most <= 6
    assert all(1 <= len(batch) <= 5 for batch in scorer.batches)
    asked = [f for batch in scorer.batches for f in batch]
    assert sorted(f.amount for f in asked) == list(range(400))
    if how is not Order.NONE:
        for key in {f.who for f in asked}:
            mine = [f.amount for f in asked if f.who == key]
            assert mine == sorted(mine)
    if how is Order.PARTITION:
        assert scorer.most == 1


async def test_a_slow_key_holds_up_only_itself() -> None:
    """While one key's answer is out, 50 others are decided; its own next record is not asked about before."""
    gate = asyncio.Event()

    class OneSlow(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            if any(getattr(q.features, "who", "") == "slow" for q in questions):
                self.batches.append([q.features for q in questions if isinstance(q.features, OrderFeatures)])
                await gate.wait()
                return [Answer("answered", OrderAnswer(risk=1, verdict="accept")) for _ in questions]
            return await super().score(questions, deadline)

    scorer = OneSlow()
    agent = simple_agent(scorer, batch=Batch(1, within="0ms"), deadline="30s")
    records = [order("slow", 1), order("slow", 2), *(order(f"k{i}") for i in range(50))]
    running = asyncio.create_task(outcomes(agent, records, scorer))
    async with asyncio.timeout(5):
        while len(scorer.batches) < 51:  # noqa: ASYNC110 - the scorer has no event to wait for
            await asyncio.sleep(0.005)
    assert [f.amount for b in scorer.batches for f in b if f.who == "slow"] == [1]
    gate.set()
    assert len(await running) == 52


async def test_consecutive_records_of_one_key_may_share_a_call() -> None:
    """A hot key is asked about in batches, in its order."""
    scorer = Scripted()
    agent = simple_agent(scorer, batch=Batch(4, within="20ms"), in_flight=1)
    await outcomes(agent, [order("hot", i) for i in range(12)], scorer)
    assert [[f.amount for f in b] for b in scorer.batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


async def test_rules_skips_and_faults_are_outcomes_and_their_neighbours_go_on() -> None:
    """A skip, a rule, a raising agent, bad JSON and a missing field beside good records: each has its own outcome."""
    scorer = Scripted()
    records = [
        order("a"), order("a", wish="skip"), order("a", wish="rule"), order("a", wish="raise-features"),
        order("a", wish="raise-decide"), Raw("orders", b"{broken", b"a", timestamp=1), Raw("orders", b'{"who":"a"}', timestamp=1),
        Raw("orders", None, b"a", timestamp=1), order("a", 9),
    ]  # fmt: skip
    found = await outcomes(simple_agent(scorer), records, scorer)
    assert verdicts(found) == [
        "accept", "asked-to-skip", "refuse", "dead_letter", "dead_letter", "dead_letter", "dead_letter", "tombstone", "accept",
    ]  # fmt: skip
    assert found[2].decisions[0]["tier"] == "rule"
    assert "features were asked to fail" in found[3].dead_letters[0]["headrace_detail"]
    assert found[6].dead_letters[0]["headrace_field"] == "amount"


async def test_every_decision_is_what_its_schema_says() -> None:
    """The body built by hand validates as schemas.decision.Decision and has every field of it."""
    scorer = Scripted()
    for outcome in await outcomes(simple_agent(scorer), [order("a", 5), order("b", wish="rule")], scorer):
        body = outcome.decisions[0]
        Decision.model_validate(body)
        assert set(body) == {field.alias or name for name, field in Decision.model_fields.items()}


@pytest.mark.parametrize("status", ["timeout", "unavailable", "limited", "rejected", "invalid", "missing", "refused"])
async def test_without_an_answer_a_record_goes_to_review_and_says_why(status: Any) -> None:
    """Tier none, outcome review, the reason named; never an approval."""
    scorer = Scripted(lambda f: Answer(status, why="told so"))
    (found,) = await outcomes(simple_agent(scorer), [order("a")], scorer)
    body = found.decisions[0]
    assert (body["outcome"], body["tier"], body["tier_why"]) == ("review", "none", "told so")


async def test_an_agent_that_approves_without_an_answer_is_overruled() -> None:
    """No answer means review, whatever decide says; the rule is named and a person must look."""
    from agents.engine.spec import Verdict

    scorer = Scripted(lambda f: Answer("timeout"))
    agent = simple_agent(scorer, decide=lambda context, features, answer: Verdict("accept"))
    (found,) = await outcomes(agent, [order("a")], scorer)
    body = found.decisions[0]
    assert (body["proposed_outcome"], body["outcome"], body["overrides"]) == ("accept", "review", ["no-answer"])
    assert body["review"]["required"] is True


async def test_a_model_that_refuses_by_itself_goes_to_review() -> None:
    """An adverse outcome needs a person unless the agent says otherwise."""
    scorer = Scripted(lambda f: Answer("answered", OrderAnswer(risk=99, verdict="refuse")))
    (held,) = await outcomes(simple_agent(scorer, adverse=("refuse",)), [order("a")], scorer)
    (free,) = await outcomes(simple_agent(scorer, adverse=("refuse",), adverse_alone=True), [order("a")], scorer)
    assert (held.decisions[0]["proposed_outcome"], held.decisions[0]["outcome"]) == ("refuse", "review")
    assert free.decisions[0]["outcome"] == "refuse"


async def test_waiting_asks_until_there_is_an_answer_and_keeps_the_order() -> None:
    """An agent that waits gets its answer when the model is back; the key's later records come after."""
    answers: Iterator[Answer[OrderAnswer]] = iter([Answer("unavailable"), Answer("limited")])
    good = Answer("answered", OrderAnswer(risk=1, verdict="accept"))
    scorer = Scripted(lambda f: next(answers, good) if f.amount == 1 else good)
    agent = simple_agent(scorer, on_no_answer="wait", batch=Batch(2, within="1ms"))
    found = await outcomes(agent, [order("a", 1), order("a", 2), order("b", 3)], scorer)
    assert verdicts(found) == ["accept"] * 3
    assert [o.decisions[0]["tier"] for o in found] == ["model"] * 3


async def test_a_fallback_answers_in_place_of_the_model_and_says_so() -> None:
    """on_no_answer=fallback asks the other scorer; the decision's tier is fallback."""
    scorer, other = Scripted(lambda f: Answer("timeout")), Scripted()
    agent = simple_agent(scorer, on_no_answer="fallback")
    (found,) = await outcomes(agent, [order("a", 7)], scorer, fallback=other)
    assert (found.decisions[0]["tier"], found.decisions[0]["outcome"], found.decisions[0]["score"]) == ("fallback", "accept", 7)


async def test_records_past_their_deadline_are_not_paid_for() -> None:
    """With one call at a time and a call as long as the deadline, what had to wait too long is answered 'none', unasked."""

    class Slow(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            got = await super().score(questions, deadline)
            await asyncio.sleep(0.25)
            return got

    scorer = Slow()
    agent = simple_agent(scorer, in_flight=1, batch=Batch(1, within="0ms"), deadline="200ms")
    began = time.monotonic()
    found = await outcomes(agent, [order("a"), order("b"), order("c")], scorer)
    assert [o.decisions[0]["tier"] for o in found] == ["model", "none", "none"]
    assert len(scorer.batches) == 1
    assert time.monotonic() - began < 5


async def test_a_scorer_that_miscounts_ends_the_engine() -> None:
    """A broken contract is no data fault: it is raised, and nothing is finished on a guess."""

    class Miscounting(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            return []

    scorer = Miscounting()
    with pytest.raises(FatalError, match="0 answers to 1 questions"):
        await outcomes(simple_agent(scorer), [order("a")], scorer)
