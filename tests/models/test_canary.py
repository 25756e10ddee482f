"""Batches that are honest about quality: what a batch does to answers is measured, and batches shrink where it harms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.canary import Canary
from models.contract import Answer, Question
from models.flips import LEAST_EVIDENCE, FlipMeter, same
from tests.support.scoring import Judged, questions, soon


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
        while canary._asking:  # noqa: ASYNC110  # tasks of another part, looked at from outside
            await asyncio.sleep(0)


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
