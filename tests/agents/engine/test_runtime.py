"""The engine through its public door: records in by slot, outcomes out by record; order, bounds, faults, missing answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from agents.engine import runtime
from agents.engine.joins import MemoryTable
from agents.engine.manifests import manifest_of
from agents.engine.pipeline import Pipeline
from agents.engine.runtime import Engine
from agents.engine.spec import Batch, Join, Order
from agents.engine.trial import TrialOutcome, try_records
from agents.engine.verdicts import Site
from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Answer, Ask, Question
from models.sandbox.server import Sandbox
from schemas.audit import Call
from schemas.decision import Decision
from schemas.errors import FatalError
from schemas.event import Event
from tests.support.partitions import ListedSlot, LonePartition
from tests.support.simple_agent import OrderAnswer, OrderFeatures, Purchase, Scripted, order, simple_agent
from topics.decode.result import Decoded
from topics.handover import Finished, Slot, TopicPartition
from topics.record import Raw, RawRecord
from topics.spec import change_topic


async def outcomes(agent: Any, records: Sequence[Raw], scorer: Any, **more: Any) -> list[TrialOutcome]:
    return [outcome async for outcome in try_records(agent, records, scorer, **more)]


CUSTOMERS = change_topic("customers", Purchase, key=("who",))


class Recording(LonePartition):
    """Writes down which subjects left, in order."""

    def __init__(self, left: list[tuple[int, str]]) -> None:
        super().__init__()
        self.left = left
        self.finished = 0

    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        self.finished += 1
        for made in outcome.outbound:
            if made.purpose == "decision":
                body = orjson.loads(made.value or b"")
                self.left.append((body["source"]["offset"], body["subject"]["id"]))

    async def done(self, wanted: int) -> None:
        while self.finished < wanted:  # noqa: ASYNC110 - the engine tells the partition, not us
            await asyncio.sleep(0.01)


def engine_of(agent: Any, scorer: Any, *, decode: Any = None, failed: list[BaseException] | None = None) -> Engine:
    """The engine alone, with a decoder of the test's."""
    pipeline = Pipeline(
        agent, Site(manifest="test"), dead_letters="dlq", judgements=None, joins=None, wall_ms=lambda: 1, decode=decode
    )
    return Engine(agent, pipeline, scorer, on_fatal=(failed if failed is not None else []).append)


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
    async with asyncio.timeout(60):
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


@pytest.mark.parametrize(
    ("alone", "outcome", "overrides"), [(("accept",), "accept", []), ((), "review", ["fallback-needs-review"])]
)
async def test_a_fallback_answers_in_place_of_the_model_and_says_so(
    alone: tuple[str, ...], outcome: str, overrides: list[str]
) -> None:
    """on_no_answer=fallback asks the other scorer: tier fallback; what it may not reach alone is reviewed, its proposal kept."""
    scorer, other = Scripted(lambda f: Answer("timeout")), Scripted()
    agent = simple_agent(scorer, on_no_answer="fallback", fallback_alone=alone)
    (found,) = await outcomes(agent, [order("a", 7)], scorer, fallback=other)
    (body,) = found.decisions
    assert (body["tier"], body["outcome"], body["score"], body["overrides"]) == ("fallback", outcome, 7, overrides)
    assert (body["proposed_outcome"], body["review"]["required"]) == ("accept", outcome == "review")


async def test_what_was_stopped_is_waited_for_where_the_agent_waits_and_it_can_be_cured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who could not check a record may be back in a moment; what was refused stays refused."""
    monkeypatch.setattr("agents.engine.runtime.FIRST_WAIT", 0.001)
    answers = iter([Answer[OrderAnswer]("unavailable", stopped=True)])
    good = Answer("answered", OrderAnswer(risk=1, verdict="accept"))
    scorer = Scripted(lambda f: next(answers, good) if f.amount == 1 else Answer("refused", stopped=True))
    found = await outcomes(simple_agent(scorer, on_no_answer="wait", batch=Batch(1)), [order("a", 1), order("b", 2)], scorer)
    assert verdicts(found) == ["accept", "review"]


async def test_a_backlog_is_not_mistaken_for_a_model_that_does_not_answer() -> None:
    """One call at a time, together longer than the deadline: all are decided by the model, each call has its whole deadline."""
    left: list[float] = []

    class Slow(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            left.append(deadline - asyncio.get_running_loop().time())
            await asyncio.sleep(0.5)
            return await super().score(questions, deadline)

    scorer = Slow()
    agent = simple_agent(scorer, in_flight=1, batch=Batch(1, within="0ms"), deadline="2s")
    found = await outcomes(agent, [order("a"), order("b"), order("a"), order("c"), order("a")], scorer)
    assert [o.decisions[0]["tier"] for o in found] == ["model"] * 5
    assert min(left) > 1.0


async def test_a_rejection_is_not_waited_out_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that waits gives a record that is rejected again and again to a person, and its key goes on."""
    monkeypatch.setattr("agents.engine.runtime.FIRST_WAIT", 0.001)
    good = Answer("answered", OrderAnswer(risk=1, verdict="accept"))
    scorer = Scripted(lambda f: Answer("rejected", why="400") if f.amount == 1 else good)
    agent = simple_agent(scorer, on_no_answer="wait", batch=Batch(1, within="1ms"))
    found = await outcomes(agent, [order("a", 1), order("a", 2)], scorer)
    assert verdicts(found) == ["review", "accept"]


async def test_a_rejection_after_a_long_outage_is_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that waits goes on waiting: how often the model was away before says nothing of the record."""
    monkeypatch.setattr("agents.engine.runtime.LONGEST_WAIT", 0.001)
    most = runtime.MOST_REJECTIONS
    away, refused = Answer[OrderAnswer]("unavailable"), Answer[OrderAnswer]("rejected")
    before = [away] * 2 * most + [refused] * most
    answers = iter(before)
    good = Answer("answered", OrderAnswer(risk=1, verdict="accept"))
    scorer = Scripted(lambda f: next(answers, good))
    found = await outcomes(simple_agent(scorer, on_no_answer="wait", batch=Batch(1, within="1ms")), [order("a")], scorer)
    assert verdicts(found) == ["accept"]
    assert len(scorer.batches) == len(before) + 1


@pytest.mark.parametrize("how", [Order.KEY, Order.PARTITION])
async def test_parts_of_one_record_do_not_let_later_records_overtake(how: Order) -> None:
    """While one subject of a pack is slow, later records of the pack's other subjects wait: what leaves, leaves in order."""
    left: list[tuple[int, str]] = []

    class Slow(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            asked = [q.features for q in questions if isinstance(q.features, OrderFeatures)]
            await asyncio.sleep(0.2 if any(f.who == "b" for f in asked) else 0)
            return await super().score(questions, deadline)

    scorer = Slow()
    packs = [[("a", 1), ("b", 2)], [("a", 3)], [("b", 4), ("a", 5), ("a", 6)], [("c", 7)], [("a", 8), ("c", 9)]]
    agent = simple_agent(scorer, order=how, batch=Batch(2, within="1ms"))

    def unpack(record: RawRecord) -> Decoded[Event[Purchase]]:
        pairs = orjson.loads(record.value or b"[]")
        return Decoded(tuple(Event(Purchase(who=who, amount=amount)) for who, amount in pairs))

    partition = Recording(left)
    engine = engine_of(agent, scorer, decode=unpack)
    await engine.take(partition)
    records = [Raw("orders", orjson.dumps(pack), offset=n, timestamp=1) for n, pack in enumerate(packs)]
    engine.offer(ListedSlot(records, partition))
    async with asyncio.timeout(60):
        await partition.done(len(packs))
    await engine.close()
    for who in "abc":
        mine = [offset for offset, subject in left if subject == who]
        assert mine == sorted(mine), f"{who} left in the order {mine}"
    assert len(left) == 9
    assert len({offset for offset, _ in left}) == 5


async def test_a_join_that_fails_is_a_dead_letter_wherever_it_stands() -> None:
    """A key that can not be made, at the head of a lane and behind it: each such record has a dead letter, the others go on."""

    def key(event: Event[Purchase]) -> Any:
        if event.row.wish == "bad-join":
            raise ValueError("no key can be made of this")
        return None

    scorer = Scripted()
    agent = simple_agent(scorer, joins={"customer": Join(CUSTOMERS, on=key, wait="1s")}, batch=Batch(4, within="20ms"))
    records = [order("a", wish="bad-join"), order("a"), order("a", wish="bad-join"), order("a"), order("b")]
    found = await outcomes(agent, records, scorer, tables={"customer": MemoryTable(CUSTOMERS)})
    assert verdicts(found) == ["dead_letter", "accept", "dead_letter", "accept", "accept"]
    assert found[0].dead_letters[0]["headrace_stage"] == "join"


async def test_records_behind_one_another_share_the_wait_for_a_missing_row() -> None:
    """The wait of a join counts from the hand-over: twelve records of one subject wait once, not twelve times."""
    scorer = Scripted()
    agent = simple_agent(scorer, joins={"customer": Join(CUSTOMERS, on=lambda event: 7, wait="300ms")})
    began = time.monotonic()
    found = await outcomes(agent, [order("a", n) for n in range(12)], scorer, tables={"customer": MemoryTable(CUSTOMERS)})
    assert time.monotonic() - began < 2
    assert verdicts(found) == ["accept"] * 12
    assert found[11].decisions[0]["inputs"][0]["status"] == "missing"


async def test_a_retraction_that_can_not_be_written_is_a_dead_letter() -> None:
    """A delete whose source says the year 10000 does not end the engine."""
    spec = change_topic("purchases", Purchase, key=("who",))
    scorer = Scripted()
    agent = simple_agent(scorer, reads=spec, subject=lambda change: str(change.key["who"]), on_delete="retract")
    value = {"before": {"who": "a", "amount": 1}, "after": None, "op": "d", "source": {"connector": "mysql", "ts_ms": 10**18}}
    record = Raw("purchases", orjson.dumps(value), b'{"who": "a"}', timestamp=1)
    (found,) = await outcomes(agent, [record], scorer)
    assert found.dead_letters[0]["headrace_reason"] == "event-time-implausible"


@pytest.mark.parametrize("who", ["", "a\x00b", "a\r\nb", "\x1b[31m"])
async def test_a_subject_that_can_not_be_a_header_is_a_dead_letter(who: str) -> None:
    """No control character gets into ce_subject, and nothing is decided about nobody."""
    scorer = Scripted()
    (found,) = await outcomes(simple_agent(scorer), [order(who)], scorer)
    assert found.dead_letters[0]["headrace_reason"] == "invalid-subject"
    assert scorer.batches == []


async def test_a_record_timestamp_beyond_all_time_is_named() -> None:
    """A broker time that no calendar has is a data fault that names it, not a defect of the agent."""
    scorer = Scripted()
    record = Raw("orders", order("a").value, b"a", timestamp=2**62)
    (found,) = await outcomes(simple_agent(scorer), [record], scorer)
    assert found.dead_letters[0]["headrace_field"] in ("event time", "record timestamp")


async def test_a_partition_lost_while_its_model_is_away_ends_nothing() -> None:
    """The answer and the loss in one turn of the loop: no defect is told, and nothing of the partition is finished."""
    failed: list[BaseException] = []
    partition = Recording([])
    scorer = Scripted(lambda f: Answer("unavailable"))
    engine = engine_of(simple_agent(scorer, on_no_answer="wait", batch=Batch(1, within="0ms")), scorer, failed=failed)
    await engine.take(partition)
    engine.offer(ListedSlot([order("a")], partition))
    while not scorer.batches:  # noqa: ASYNC110 - see above
        await asyncio.sleep(0)
    engine.lose(partition.tp)
    await asyncio.sleep(0.8)
    await engine.close()
    assert failed == []
    assert partition.finished == 0


async def test_a_scorer_that_miscounts_ends_the_engine() -> None:
    """A broken contract is no data fault: it is raised, and nothing is finished on a guess."""

    class Miscounting(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            return []

    scorer = Miscounting()
    with pytest.raises(FatalError, match="0 answers to 1 questions"):
        await outcomes(simple_agent(scorer), [order("a")], scorer)


async def test_the_scorer_is_told_the_agents_deadline_and_no_later_one() -> None:
    """What a scorer may take is the agent's deadline, from the moment it is asked."""
    left: list[float] = []

    class Asked(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            left.append(deadline - asyncio.get_running_loop().time())
            return await super().score(questions, deadline)

    scorer = Asked()
    await outcomes(simple_agent(scorer, deadline="7s"), [order(f"k{i}") for i in range(9)], scorer)
    assert left
    assert all(6.0 < seconds <= 7.0 for seconds in left)


@pytest.mark.parametrize("stubborn", [False, True], ids=["cancelled", "not even then"])
async def test_a_scorer_that_ignores_its_deadline_is_left(stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that never comes ends as the agent says for one that is late, the same key goes on, and so does a drain."""
    monkeypatch.setattr(runtime, "OVERSTAY_SECONDS", 0.1)
    never = asyncio.Event()

    class Hangs(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            if any(getattr(q.features, "amount", 0) == 1 for q in questions):
                try:
                    await never.wait()
                except asyncio.CancelledError:
                    if not stubborn:
                        raise
                    await never.wait()
                raise RuntimeError("nobody asks any more")
            return await super().score(questions, deadline)

    scorer = Hangs()
    agent = simple_agent(scorer, batch=Batch(1, within="0ms"), deadline="100ms")
    async with asyncio.timeout(60):
        found = await outcomes(agent, [order("a", 1), order("a", 2), order("b", 3)], scorer)
    assert verdicts(found) == ["review", "accept", "accept"]
    assert [o.decisions[0]["tier"] == "none" for o in found] == [True, False, False]
    never.set()
    await asyncio.sleep(0)


async def test_a_fallback_that_hangs_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the model nor the fallback answers: the record still has its outcome."""
    monkeypatch.setattr(runtime, "OVERSTAY_SECONDS", 0.1)
    monkeypatch.setattr(runtime, "FALLBACK_SECONDS", 0.1)

    class Hangs(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            await asyncio.Event().wait()
            return []

    scorer = Hangs()
    agent = simple_agent(scorer, deadline="100ms", on_no_answer="fallback")
    async with asyncio.timeout(60):
        found = await outcomes(agent, [order("a")], scorer, fallback=Hangs())
    assert verdicts(found) == ["review"]


async def test_while_a_scorer_is_full_nothing_is_asked_and_no_deadline_runs() -> None:
    """Records wait with the engine, past their deadline if need be; when there is room the model decides them."""

    class Full(Scripted):
        full = True
        tell: Any = None

        def room(self, coming: int = 0) -> bool:
            return not self.full

        def on_room(self, tell: Any) -> None:
            self.tell = tell

    scorer = Full()
    agent = simple_agent(scorer, batch=Batch(2, within="0ms"), deadline="200ms")
    trial = asyncio.ensure_future(outcomes(agent, [order(f"k{i}", i) for i in range(6)], scorer))
    await asyncio.sleep(0.5)
    assert not scorer.batches
    assert not trial.done()
    scorer.full = False
    scorer.tell()
    async with asyncio.timeout(60):
        found = await trial
    assert [o.decisions[0]["tier"] for o in found] == ["model"] * 6


async def test_questions_say_from_which_partition_their_records_came() -> None:
    """Shares of limits and budgets go by it."""
    seen: list[int] = []

    class Asked(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            seen.extend(question.partition for question in questions)
            return await super().score(questions, deadline)

    scorer = Asked()
    left: list[tuple[int, str]] = []
    partition = Recording(left)
    partition.tp = TopicPartition("orders", 3)
    engine = engine_of(simple_agent(scorer), scorer)
    await engine.take(partition)
    engine.offer(ListedSlot([order("a"), order("b")], partition))
    async with asyncio.timeout(60):
        await partition.done(2)
    await engine.close()
    assert seen == [3, 3]


async def test_the_part_of_all_partitions_that_is_ours_is_told() -> None:
    """Shares of a common account follow the assignment."""
    told: list[float] = []
    scorer = Scripted()
    agent = simple_agent(scorer)
    pipeline = Pipeline(agent, Site(manifest="test"), dead_letters="dlq", judgements=None, joins=None, wall_ms=lambda: 1)
    engine = Engine(agent, pipeline, scorer, on_fatal=print, owned=told.append)
    for number in range(3):
        partition = Recording([])
        partition.tp, partition.topic_partitions = TopicPartition("orders", number), 4
        await engine.take(partition)
    engine.lose(TopicPartition("orders", 1))
    engine.lose(TopicPartition("orders", 1))
    await engine.close()
    assert told == [0.25, 0.5, 0.75, 0.5]


def notes(lengths: Sequence[int]) -> list[Raw]:
    """Records whose prompts differ in length."""
    return [order(f"k{i}", i, wish="x" * length, offset=i) for i, length in enumerate(lengths)]


async def asked_of_a_sandbox(batch: Batch, records: list[Raw], **changes: Any) -> list[Call]:
    """The calls to a real endpoint in which an agent with such batches asks about the records; all of them must be decided."""
    calls: list[Call] = []
    ask = Ask(OrderAnswer, "Judge.", max_tokens=100)
    async with Sandbox() as server:
        scorer = ChatScorer(ask, Line(server.base_url, None, "m"), agent="simple", on_call=calls.append)
        agent = simple_agent(ask, answer_model=None, batch=batch, **changes)
        partition = Recording([])
        engine = engine_of(agent, scorer)
        await engine.take(partition)
        engine.offer(ListedSlot(records, partition))
        async with asyncio.timeout(60):
            await partition.done(len(records))
        await engine.close()
    assert sum(len(call.records) for call in calls) == len(partition.left) == len(records)
    return calls


async def test_batches_keep_to_a_limit_of_prompt_tokens_and_do_not_wait_for_more() -> None:
    """No call has more prompt tokens of records than the limit unless it is one record; with hours to wait, all leave at once."""
    (alone,) = await asked_of_a_sandbox(Batch(1), notes([0]))
    fixed = alone.tokens.input  # the instructions, and a record of about 30 tokens
    lengths = [300, 100, 200, 800, 4000, 100, 300, 900, 100, 4000]
    calls = await asked_of_a_sandbox(Batch(64, within="1h", prompt_tokens=500), notes(lengths), deadline="2h", in_flight=1)
    assert all(len(call.records) == 1 or call.tokens.input - fixed <= 500 for call in calls)
    assert any(len(call.records) > 2 for call in calls)
    assert sum(call.tokens.input - fixed > 500 for call in calls) == 2


async def test_batches_keep_to_a_limit_of_reserved_output_and_do_not_wait_for_more() -> None:
    """No request sets a limit of output tokens above the batch's; a batch is as large as that allows and leaves at once."""
    calls = await asked_of_a_sandbox(Batch(64, within="1h", output_tokens=450), notes([1] * 12), deadline="2h")
    assert [len(call.records) for call in calls] == [4, 4, 4]
    assert {call.parameters["max_tokens"] for call in calls} == {432}


@pytest.mark.parametrize("limit", [None, 1_000_000])
async def test_records_are_weighed_only_where_a_limit_asks_for_it(limit: int | None) -> None:
    """Weighing writes the features once more; each record is weighed once, however often it is looked at."""
    weighed: list[int] = []

    class Weighs(Scripted):
        def weigh(self, features: BaseModel) -> int:
            weighed.append(getattr(features, "amount", -1))
            return 10

    scorer = Weighs()
    agent = simple_agent(scorer, batch=Batch(4, within="5ms", prompt_tokens=limit), order=Order.KEY)
    await outcomes(agent, [order(f"k{i % 2}", i) for i in range(9)], scorer)
    assert sorted(weighed) == (list(range(9)) if limit else [])


def test_the_limits_of_batches_are_part_of_what_a_decision_is_made_with() -> None:
    """The manifest names those that are set, so its hash tells agents apart whose batches differ."""
    agent = simple_agent(Scripted(), batch=Batch(8, within="1s", prompt_tokens=900))
    manifest = manifest_of(agent, models=["m"])
    assert manifest.parameters["batch"] == {"size": 8, "within": "1s", "bytes": 256 * 1024, "prompt_tokens": 900}
    assert manifest.hash() != manifest_of(simple_agent(Scripted(), batch=Batch(8, within="1s")), models=["m"]).hash()
