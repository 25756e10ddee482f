"""Gates before each request of the chat transport: who is asked, in which order, and what they are told."""

from __future__ import annotations

import asyncio
import random

import pytest

from models.gates.gate import Asking, Ended, Leave, Refused
from models.gates.passage import Passage
from models.gates.slots import Slots
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import chat, questions, soon, statuses


class Recorder:
    """A gate that lets everything pass, or raises, and notes what it is asked and told."""

    def __init__(self, name: str, log: list[str], raises: BaseException | None = None) -> None:
        self.name, self.log, self.raises = name, log, raises
        self.asked: list[Asking] = []
        self.told: list[Ended] = []

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """See models.gates.gate.Gate."""
        self.log.append(f"{self.name} asked")
        self.asked.append(asking)
        if self.raises is not None:
            raise self.raises

        def leave(ended: Ended) -> None:
            self.log.append(f"{self.name} told {ended.kind}")
            self.told.append(ended)

        return leave


ASKING = Asking("a", 10, 10, {0: 1})

ENDS = [
    ("", ["served"]),
    ("500", ["unavailable", "served"]),
    ("reset", ["unavailable", "served"]),
    ("429", ["limited", "served"]),
    ("401", ["rejected"]),
    ("404", ["rejected"]),
    ("307", ["rejected"]),
    ("html", ["protocol", "served"]),
    ("refusal", ["served", "served", "served"]),
    ("missing", ["served", "served"]),
]


@pytest.mark.parametrize(("fault", "kinds"), ENDS, ids=[row[0] or "nothing" for row in ENDS])
async def test_a_gate_is_told_how_each_request_ended(fault: str, kinds: list[str]) -> None:
    """Every entry is followed by one leave, which names what became of the request and what it used."""
    gate = Recorder("g", [])
    async with Sandbox(SandboxConfig(schedule=(fault,))) as server:
        scorer = chat(server.base_url, gates=(gate, Slots(1, lambda: 0.01)))
        await scorer.score(questions(2), soon(20))
        await scorer.close()
    assert [ended.kind for ended in gate.told] == kinds
    assert len(gate.asked) == len(gate.told)
    for ended in gate.told:
        assert (ended.tokens is not None) == (ended.kind == "served")
        assert (ended.status is not None) == (ended.kind in ("served", "rejected"))
        assert ended.seconds > 0


async def test_gates_are_entered_in_order_and_left_in_reverse() -> None:
    """The first one entered is the last one told."""
    log: list[str] = []
    async with Passage([Recorder("a", log), Recorder("b", log)], ASKING, 1.0) as passage:
        log.append("sent")
        passage.ended = Ended("served")
    assert log == ["a asked", "b asked", "sent", "b told served", "a told served"]


FORBID = [Refused("budget", "spent"), TimeoutError(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", FORBID, ids=lambda error: type(error).__name__)
async def test_what_a_later_gate_forbids_was_not_sent(error: BaseException) -> None:
    """Whoever was entered before is told that the request did not leave."""
    log: list[str] = []
    with pytest.raises(type(error)):
        async with Passage([Recorder("a", log), Recorder("b", log, error)], ASKING, 1.0):
            raise AssertionError("it left")
    assert log == ["a asked", "b asked", "a told unsent"]


async def test_a_refusal_is_the_answer_and_nothing_is_sent() -> None:
    """A gate's word stands in every answer; there is no request and no Call."""
    calls: list[Call] = []
    async with Sandbox() as server:
        scorer = chat(server.base_url, calls, gates=[Recorder("g", [], Refused("budget", "the day's budget is spent"))])
        answers = await scorer.score(questions(3), soon(5))
        await scorer.close()
        assert server.meter.requests == 0
    assert statuses(answers) == ["budget"] * 3
    assert {answer.why for answer in answers} == {"the day's budget is spent"}
    assert calls == []


@pytest.mark.parametrize("cancelled", [False, True], ids=["deadline", "cancelled"])
async def test_a_request_that_was_cut_off_counts_as_sent(cancelled: bool) -> None:
    """At the deadline, or when the caller goes away: the gate is told which, and no tokens, so that all it reserved counts."""
    gate = Recorder("g", [])
    async with Sandbox(SandboxConfig(faults={"hang": 1.0})) as server:
        scorer = chat(server.base_url, gates=[gate])
        task = asyncio.ensure_future(scorer.score(questions(1), soon(60 if cancelled else 0.5)))
        while not server.meter.requests:  # noqa: ASYNC110  # a counter of another part, read from outside
            await asyncio.sleep(0.01)
        if cancelled:
            task.cancel()
        await asyncio.wait([task])
        await scorer.close()
    assert [(ended.kind, ended.tokens) for ended in gate.told] == [("cancelled" if cancelled else "timeout", None)]
    assert 0 < gate.told[0].seconds < 60


async def test_a_request_says_what_it_will_cost_and_whose_records_it_has() -> None:
    """Tokens reserved are no fewer than those used, by the endpoint's count; records are counted by source partition."""
    gate = Recorder("g", [])
    asked = questions(8)
    for place, question in enumerate(asked):
        question.partition = place % 3  # type: ignore[misc]  # a value is immutable to the type checker only
    async with Sandbox() as server:
        scorer = chat(server.base_url, gates=[gate], agent="risk")
        await scorer.score(asked, soon(5))
        await scorer.close()
    (asking,), (ended,) = gate.asked, gate.told
    assert (asking.agent, dict(asking.partitions), asking.again) == ("risk", {0: 3, 1: 3, 2: 2}, False)
    assert ended.tokens is not None
    assert asking.most.input > asking.input_tokens >= ended.tokens.input > 0
    assert asking.output_tokens >= ended.tokens.output > 0


async def test_after_a_429_a_request_is_first_in_line_and_no_try_is_charged() -> None:
    """Five 429s are more than the three tries of an endpoint that fails; the record is answered all the same."""
    gate, calls = Recorder("g", []), list[Call]()
    async with Sandbox(SandboxConfig(schedule=("429",) * 5)) as server:
        scorer = chat(server.base_url, calls, gates=[gate])
        answers = await scorer.score(questions(1), soon(60))
        await scorer.close()
    assert statuses(answers) == ["answered"]
    assert [asking.again for asking in gate.asked] == [False] + [True] * 5
    assert [call.status for call in calls] == ["limited"] * 5 + ["ok"]


async def test_records_stand_in_an_order_drawn_by_lot_that_the_call_can_repeat() -> None:
    """The seed in the Call gives the order; each answer says where its record stood; calls differ in their order."""
    calls: list[Call] = []
    async with Sandbox() as server:
        scorer = chat(server.base_url, calls, chance=random.Random(7).random)
        rounds = [await scorer.score(questions(8), soon(5)) for _ in range(6)]
        (alone,) = await scorer.score(questions(1), soon(5))
        await scorer.close()
    assert alone.position == 0
    assert calls[-1].shuffle_seed is None
    for call, answers in zip(calls, rounds, strict=False):
        order = list(range(8))
        random.Random(call.shuffle_seed).shuffle(order)
        assert call.records == [f"d{place}" for place in order]
        for place, answer in enumerate(answers):
            assert answer.position is not None
            assert call.records[answer.position] == f"d{place}"
    assert len({tuple(call.records) for call in calls}) > 3
