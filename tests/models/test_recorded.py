"""What was paid for is on record before it is used, and the record takes no time from those who still have to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from models.budget.budget import Budget
from models.budget.budget_gate import BudgetGate
from models.budget.prices import Price
from models.budget.within_budget import WithinBudget
from models.contract import Answer, Question
from models.gates.slots import Slots
from models.recorded import Recorded
from models.routing.cascade import Cascade, Tier
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.scoring import Judged, chat, questions, soon, statuses

DAY = "2026-05-01"
PRICE = Price(1_000_000, 1_000_000, 1_000_000)


class Gives:
    """A Scorer that gives the same answer to all."""

    def __init__(self, answer: Answer[Any], name: str = "m") -> None:
        self.name, self.asked = name, 0
        self._answer = answer

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self.asked += 1
        return [self._answer] * len(questions)

    async def close(self) -> None:
        """See models.contract.Scorer."""


def risk(number: int) -> Answer[Any]:
    """An answer of a model that was called."""
    return Answer("answered", Judged(risk=number, grade="good"), call_id="c")


async def test_an_answer_is_given_when_its_call_is_recorded_or_the_deadline_has_passed() -> None:
    """Until then what it cost would be unknown to whoever takes over; nothing that was asked is thrown away for it."""
    budget, order = Budget(1_000_000), list[str]()
    budget.take(0, 1, {})
    recorded = asyncio.Event()

    async def wait() -> None:
        order.append("waits")
        await recorded.wait()

    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        inner = WithinBudget(chat(server.base_url, gates=gates, price=PRICE), budget, lambda: DAY)
        scorer = Recorded(inner, wait)
        asking = asyncio.ensure_future(scorer.score(questions(1), soon(20)))
        async with asyncio.timeout(20):
            while not order:  # noqa: ASYNC110  # what another part does, seen from outside
                await asyncio.sleep(0.01)
        assert not asking.done()
        assert budget.total(DAY) > 0
        recorded.set()
        assert statuses(await asking) == ["answered"]
        recorded.clear()
        assert statuses(await scorer.score(questions(1), soon(0.2) - 0.9)) == ["timeout"]
        await scorer.close()


async def test_tiers_do_not_wait_and_the_last_answer_waits_for_all_of_their_calls() -> None:
    """A broker that is slow to confirm the cheap model's call takes no time from the strong one."""
    cheap, strong, waits = Gives(risk(50), "small"), Gives(risk(10), "big"), list[tuple[int, int]]()

    async def wait() -> None:
        waits.append((cheap.asked, strong.asked))
        await asyncio.sleep(60)

    budget = Budget(1000)
    budget.take(0, 1, {})
    small, big = (WithinBudget(one, budget, lambda: DAY) for one in (cheap, strong))
    asked = Cascade(Judged, big, field="risk", cheap=Tier(small, (25, 75)), share=0.0)
    (answer,) = await Recorded(asked, wait).score(questions(1), soon(0.2))
    assert answer.value == Judged(risk=10, grade="good")
    assert waits == [(1, 1)]


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (Answer("answered", call_id="c"), True), (Answer("answered", call_id="c", cache="shared"), True),
        (Answer("budget"), True), (Answer("answered", call_id="c", cache="hit"), False),
        (Answer("answered", call_id="c", cache="hit", tiers=("small: 50 in 25 to 75",)), True),
    ],
)  # fmt: skip
async def test_only_what_a_cache_had_without_asking_anybody_is_given_at_once(answer: Answer[Any], waits: bool) -> None:
    """What brought no answer may have cost something on its way; what was shared was asked by another this moment."""
    waited: list[bool] = []

    async def wait() -> None:
        waited.append(True)

    assert await Recorded(Gives(answer), wait).score(questions(1), soon(5)) == [answer]
    assert bool(waited) == waits
