"""Batches that are honest about quality: what a batch does to answers is measured, and batches shrink where it harms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract import Answer, Question
from models.quality.canary import SELDOM, Canary
from models.quality.flips import LEAST_EVIDENCE, FlipMeter, same
from models.sandbox.server import Sandbox
from schemas.audit import Call
from tests.support.scoring import Judged, chat, questions, soon


class Degrading:
    """A model that is right alone and wrong about each record behind the `good` first of a batch."""

    name = "degrading"

    def __init__(self, good: int) -> None:
        self.good = good
        self.sizes: list[int] = []
        self.closed = 0

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self.sizes.append(len(asked))
        await asyncio.sleep(0)
        grades = ["good" if place < self.good else "bad" for place in range(len(asked))]
        return [Answer("answered", Judged.model_validate({"risk": 1, "grade": grade})) for grade in grades]

    async def close(self) -> None:
        """See models.contract.Scorer."""
        self.closed += 1


async def ask(canary: Canary, calls: int, size: int, seed: int = 1) -> None:
    """So many batches of new records."""
    drawn = random.Random(seed)
    for call in range(calls):
        asked = [Question(f"{call}-{drawn.random()}", q.features) for q in questions(size)]
        answers = await canary.score(asked, soon(30))
        assert len(answers) == size
        await settled(canary)


async def settled(canary: Canary) -> None:
    """Wait for its comparisons."""
    while canary._asking:  # noqa: ASYNC110  # tasks of another part, looked at from outside
        await asyncio.sleep(0.001)


async def test_batches_shrink_to_what_the_model_can_judge_together() -> None:
    """A model that fails behind the fourth record of a call is soon asked about four at a time, and seldom about five."""
    model = Degrading(good=4)
    canary = Canary(model, FlipMeter(32, limit=0.05), share=0.5)
    await ask(canary, 20, 32)
    model.sizes.clear()
    await ask(canary, 200, 32, seed=2)
    await canary.close()
    batches = [size for size in model.sizes if size > 1]
    assert max(batches) <= 5
    assert batches.count(4) > 0.8 * len(batches)


async def test_a_model_that_is_the_same_in_a_batch_keeps_its_batches_and_the_share_is_kept() -> None:
    """No flip, no change; the calls made for the measurement are the share that was asked for."""
    model = Degrading(good=1000)
    canary = Canary(model, FlipMeter(16), share=0.1)
    await ask(canary, 100, 16)
    await canary.close()
    alone = model.sizes.count(1)
    assert canary.meter.size == 16
    assert model.sizes.count(16) == 100
    assert canary.meter.stats.compared == alone
    assert 0.06 < alone / 1600 < 0.14


async def test_the_answer_of_the_batch_is_not_kept_waiting_and_closing_ends_comparisons() -> None:
    """A comparison that never ends delays nobody, and is given up at the end."""

    class Stuck(Degrading):
        async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            if len(asked) == 1:
                await asyncio.Event().wait()
            return await super().score(asked, deadline)

    model = Stuck(good=9)
    canary = Canary(model, FlipMeter(8), share=1.0)
    async with asyncio.timeout(30):
        for _ in range(5):
            await canary.score(questions(8), soon(20))
        assert len(canary._asking) == 8
        await canary.close()
    assert model.closed == 1
    assert not canary._asking


class Crowded(Degrading):
    """A model that has room or not, as the test says, and notes for each question why it is asked."""

    def __init__(self) -> None:
        super().__init__(good=1000)
        self.there = True
        self.canaries = 0
        self.seconds: list[float] = []

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self.canaries += sum(question.purpose == "canary" for question in asked)
        self.seconds.append(deadline - asyncio.get_running_loop().time())
        return await super().score(asked, deadline)

    def room(self, coming: int = 0) -> bool:
        """See models.contract.Paced."""
        return self.there

    def on_room(self, tell: Any) -> None:
        """See models.contract.Paced."""


async def test_comparisons_take_no_room_from_decisions() -> None:
    """While there is none, and for a while after somebody was told so, one call in a hundred is compared; then they go on."""
    model = Crowded()
    canary = Canary(model, FlipMeter(16), share=1.0)
    await ask(canary, 1, 4)
    assert model.canaries == 4
    model.there, model.canaries = False, 0
    await ask(canary, SELDOM - 2, 4, seed=2)
    assert model.canaries == 0
    await ask(canary, 10, 4, seed=3)
    assert model.canaries == 1
    model.there, model.canaries = True, 0
    await ask(canary, 20, 4, seed=4)
    assert model.canaries == 0  # it was told a moment ago that there was none
    canary._short_until = 0.0
    await ask(canary, 1, 4, seed=5)
    await canary.close()
    assert model.canaries == 4


async def test_what_is_kept_for_decisions_is_not_spent_on_comparisons() -> None:
    """A budget that runs low says so for each record's partition."""
    model = Crowded()
    canary = Canary(model, FlipMeter(16), share=1.0, spare=lambda question: question.decision_id != "d1")
    await canary.score(questions(3), soon(30))
    await settled(canary)
    await canary.close()
    assert model.canaries == 2


async def test_a_comparison_has_as_much_time_as_its_batch_had() -> None:
    """What the batch took of it is not missing, or slow models would never be compared."""

    class Slow(Crowded):
        async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            answers = await super().score(asked, deadline)
            await asyncio.sleep(0.2 if len(asked) > 1 else 0)
            return answers

    model = Slow()
    canary = Canary(model, FlipMeter(16), share=1.0)
    await canary.score(questions(2), soon(20))
    await settled(canary)
    await canary.close()
    assert len(model.seconds) == 3
    assert min(model.seconds) > 19.9


async def test_only_what_was_asked_together_of_the_same_model_is_compared() -> None:
    """Not an answer from a cache, nor one asked alone after all, nor another model's: none of them tells what a batch did."""

    class Mixed(Crowded):
        async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            answers = await super().score(asked, deadline)
            alone = len(asked) == 1
            kinds = [
                {"call_id": "a"}, {"call_id": "a"}, {"call_id": "b"}, {"call_id": "c", "cache": "hit"},
                {"call_id": "c", "model_requested": "other"}, {"call_id": "c", "model_requested": "other"},
            ]  # fmt: skip
            return [
                replace(answer, call_id="z") if alone else replace(answer, **kind)  # type: ignore[arg-type]  # fields by name
                for answer, kind in zip(answers, kinds, strict=False)
            ]

    model = Mixed()
    canary = Canary(model, FlipMeter(3), share=1.0)
    canary.meter.size = 6
    await canary.score(questions(6), soon(30))
    await settled(canary)
    await canary.close()
    assert model.canaries == 4
    assert canary.meter.stats.compared == 2


async def test_batches_that_have_to_shrink_are_cut_evenly() -> None:
    """Sixteen by nine are eight and eight: no call is larger than it needs to be."""
    model = Degrading(good=1000)
    canary = Canary(model, FlipMeter(9), share=0.0)
    answers = await canary.score(questions(16), soon(30))
    assert (len(answers), model.sizes) == (16, [8, 8])
    assert list(await canary.score([], soon(30))) == []


async def test_a_defect_that_a_comparison_meets_is_not_lost() -> None:
    """It is raised to whoever asks next, as any scorer's defect is; after closing nothing is compared."""

    class Broken(Degrading):
        async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            if len(asked) == 1:
                raise ZeroDivisionError
            return await super().score(asked, deadline)

    canary = Canary(Broken(good=9), FlipMeter(16), share=1.0)
    await canary.score(questions(2), soon(30))
    await settled(canary)
    with pytest.raises(ZeroDivisionError):
        await canary.score(questions(2), soon(30))
    await canary.close()
    model = Crowded()
    canary = Canary(model, FlipMeter(16), share=1.0)
    await canary.close()
    await canary.score(questions(2), soon(30))
    await settled(canary)
    assert model.canaries == 0


async def test_the_audit_tells_comparisons_from_calls_that_decide() -> None:
    """Over HTTP: the batch's Call has its shuffle's seed; each comparison is a Call of one record, marked, of the same id."""
    calls: list[Call] = []
    async with Sandbox() as server:
        canary = Canary(chat(server.base_url, calls), FlipMeter(16), share=1.0)
        answers = await canary.score(questions(4), soon(30))
        await settled(canary)
        await canary.close()
        assert server.meter.requests == 5
    batch, *alone = calls
    assert {answer.call_id for answer in answers} == {batch.call_id}
    assert (batch.purpose, len(batch.records)) == ("decision", 4)
    assert batch.shuffle_seed is not None
    assert [(call.purpose, call.shuffle_seed) for call in alone] == [("canary", None)] * 4
    assert sorted(record for call in alone for record in call.records) == sorted(batch.records)
    assert canary.meter.stats.compared == 4
    assert canary.meter.stats.flipped == 0


@given(flips=st.lists(st.booleans(), max_size=400), most=st.integers(1, 64), limit=st.floats(0.0, 1.0))
def test_the_size_stays_between_one_and_what_was_asked_for(flips: list[bool], most: int, limit: float) -> None:
    """Whatever is seen; and nothing changes on less evidence than stated."""
    meter = FlipMeter(most, limit=limit)
    for number, flipped in enumerate(flips):
        before = meter.size
        meter.seen(flipped, meter.size)
        assert 1 <= meter.size <= most
        if number + 1 < LEAST_EVIDENCE:
            assert meter.size == before


def test_a_size_that_was_cut_grows_again() -> None:
    """A bad hour does not make batches small for ever."""
    meter = FlipMeter(16, limit=0.05, window=50)
    for _ in range(LEAST_EVIDENCE):
        meter.seen(True, meter.size)
    assert meter.size == 8
    for _ in range(1000):
        meter.seen(False, meter.size)
    assert meter.size == 16


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"risk": 50, "grade": "good"}, {"risk": 50, "grade": "good"}, True),
        ({"risk": 50, "grade": "good"}, {"risk": 60, "grade": "good"}, True),
        ({"risk": 50, "grade": "good"}, {"risk": 61, "grade": "good"}, False),
        ({"risk": 50, "grade": "good"}, {"risk": 50, "grade": "bad"}, False),
    ],
)
def test_answers_are_alike_where_they_judge_alike(one: dict[str, Any], other: dict[str, Any], alike: bool) -> None:
    """Enumerations have to be equal, numbers within a tenth of their range."""
    assert same(Judged.model_validate(one), Judged.model_validate(other)) is alike
