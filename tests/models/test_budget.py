"""The budget: nothing leaves that the day's part of its partitions does not cover, whoever owns them meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.budget.budget import Budget, Hold, split
from models.budget.budget_gate import BudgetGate
from models.budget.prices import Price
from models.budget.within_budget import WithinBudget
from models.contract import Question
from models.gates.slots import Slots
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from schemas.errors import ConfigError
from tests.support.scoring import Shown, chat, soon, statuses

DAY, NEXT = "2026-05-01", "2026-05-02"
PRICE = Price(1_000_000, 1_000_000, 1_000_000)
"""A token costs one millionth: what the sandbox metered is what was spent."""


@given(st.integers(0, 10**12), st.dictionaries(st.integers(0, 99), st.integers(1, 64), min_size=1))
def test_parts_add_up(amount: int, counts: dict[int, int]) -> None:
    """Nothing is lost in rounding, and each part is within one of its due."""
    parts = split(amount, counts)
    assert sum(parts.values()) == amount
    whole = sum(counts.values())
    assert all(abs(parts[partition] - amount * count / whole) <= 1 + 1e-3 for partition, count in counts.items())


class Owners(RuleBasedStateMachine):
    """Partitions wander between two workers, with what receipts and calls know; requests cost up to what they reserve.

    What a worker that was killed or cut off had under way is the only thing that may be spent beyond the limit.
    """

    LIMIT, PARTITIONS = 1000, 4

    def __init__(self) -> None:
        super().__init__()
        self.budgets = [Budget(self.LIMIT), Budget(self.LIMIT)]
        self.owner = dict.fromkeys(range(self.PARTITIONS), 0)
        self.paid = dict.fromkeys(range(self.PARTITIONS), 0)
        self.lost = dict.fromkeys(range(self.PARTITIONS), 0)
        self.holds: list[tuple[int, Hold]] = []
        for partition in self.owner:
            self.budgets[0].take(partition, self.PARTITIONS, {})

    @rule(
        who=st.integers(0, 1), amount=st.integers(0, 300),
        wanted=st.dictionaries(st.integers(0, 3), st.integers(1, 16), min_size=1),
    )  # fmt: skip
    def asks(self, who: int, amount: int, wanted: dict[int, int]) -> None:
        """A request leaves, or is refused."""
        hold = self.budgets[who].reserve(wanted, amount, DAY)
        if hold is not None:
            assert all(self.owner[partition] == who for partition in wanted)
            self.holds.append((who, hold))

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def ends(self, data: Any) -> None:
        """It cost as much as it reserved, or less. If its partition wandered meanwhile, its call is read by the new owner."""
        who, hold = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        cost = data.draw(st.integers(0, sum(hold.shares.values())))
        self.budgets[who].settle(hold, cost)
        for partition, share in split(cost, hold.counts).items():
            self.paid[partition] += share

    @rule(partition=st.integers(0, 3))
    def wanders(self, partition: int) -> None:
        """A rebalance. After a drain nothing of the partition is under way; else its next owner does not know of that."""
        old = self.owner[partition]
        left = sum(hold.shares[partition] for who, hold in self.holds if who == old and partition in hold.counts)
        if not left and not self.lost[partition]:
            assert sum(self.budgets[old].spent(partition).values()) == self.paid[partition]
        self.lost[partition] += left
        self.budgets[old].lose(partition)
        self.owner[partition] = 1 - old
        self.budgets[1 - old].take(partition, self.PARTITIONS, {DAY: self.paid[partition]})

    @rule(partition=st.integers(0, 3))
    def comes_back(self, partition: int) -> None:
        """Lost and taken again by the same worker: its own requests under way go on holding what they reserved."""
        budget = self.budgets[self.owner[partition]]
        budget.lose(partition)
        budget.take(partition, self.PARTITIONS, {DAY: self.paid[partition]})

    @invariant()
    def never_more_than_the_limit(self) -> None:
        """What was paid and what may still have to be paid, by partition."""
        for partition, lost in self.lost.items():
            pending = sum(hold.shares.get(partition, 0) for _, hold in self.holds)
            assert self.paid[partition] + pending <= self.LIMIT // self.PARTITIONS + lost


TestOwners = Owners.TestCase


def test_days_are_apart_and_old_ones_are_forgotten() -> None:
    """A request that straddles midnight counts for the day on which it was reserved."""
    budget = Budget(100)
    budget.take(0, 1, {"2026-04-30": 9, DAY: 40})
    hold = budget.reserve({0: 1}, 60, DAY)
    assert hold is not None
    assert budget.reserve({0: 1}, 1, DAY) is None
    assert budget.reserve({0: 1}, 0, DAY) is None, "nothing is left, not even for what costs nothing"
    assert budget.left(0, NEXT) == 100
    budget.settle(hold, 30)
    assert budget.spent(0, DAY) == {DAY: 70}
    budget.forget(NEXT)
    assert (budget.spent(0), budget.total(DAY), budget.refused) == ({}, 0, 2)


def test_the_soft_limit_is_a_share_of_each_partition() -> None:
    """What requests under way hold counts as spent until they are settled; other days and partitions are not concerned."""
    budget = Budget(2000, soft=0.8)
    budget.take(0, 2, {DAY: 700})
    budget.take(1, 2, {})
    assert not budget.thrifty(0, DAY)
    hold = budget.reserve({0: 1}, 100, DAY)
    assert hold is not None
    assert [budget.thrifty(0, DAY), budget.thrifty(1, DAY), budget.thrifty(0, NEXT), budget.thrifty(2, DAY)] == [
        True, False, False, True,
    ]  # fmt: skip
    budget.settle(hold, 99)
    assert not budget.thrifty(0, DAY)
    held = budget.reserve({0: 1}, 201, DAY)
    assert held is not None, "the hard limit is where it was"


def test_without_a_soft_limit_nobody_is_thrifty_and_one_that_is_no_share_is_named() -> None:
    """Up to the last millionth."""
    budget = Budget(100)
    budget.take(0, 1, {DAY: 100})
    assert not budget.thrifty(0, DAY)
    for soft in (0.0, -0.5, 1.01):
        with pytest.raises(ConfigError, match="soft limit"):
            Budget(100, soft)


def about(*partitions: int) -> list[Question]:
    """One question a partition."""
    return [Question(f"d{n}", Shown(number=n), partition) for n, partition in enumerate(partitions)]


async def test_the_stop_is_hard_by_the_meter_of_the_endpoint() -> None:
    """Calls until the budget is spent, then none; hanging ones count in full, refused ones nothing; each call says its cost."""
    budget, calls = Budget(6000), list[Call]()
    budget.take(0, 1, {})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(latency="0ms", schedule=("", "500", "hang", "429"))) as server:
        scorer = WithinBudget(chat(server.base_url, calls, gates=gates, price=PRICE), budget, lambda: DAY)
        said = list[str]()
        for number in range(40):
            said += statuses(await scorer.score(about(0), soon(0.7 if number == 1 else 20)))
        requests = server.meter.requests
        metered = server.meter.input_tokens + server.meter.output_tokens
        refused = budget.refused
        assert statuses(await scorer.score(about(0), soon(20))) == ["budget"]
        assert server.meter.requests == requests
        assert budget.refused == refused + 1
        await scorer.close()
    assert said[-1] == "budget"
    assert 3 < said.count("answered") < 39
    assert metered < budget.total(DAY) <= 6000
    assert sum(call.cost_micro or 0 for call in calls) == budget.total(DAY)


class Wide(Shown):
    """Features with a long text."""

    digits: str


class Dear:
    """An endpoint that counts a token for each byte of the records in a request, the most that a tokenizer which works on bytes
    can make, and `rate` of one for each byte of the rest. While `plain`, records are counted like the rest.
    """

    def __init__(self, rate: float = 1.0) -> None:
        self.billed, self.rate, self.plain = 0, rate, False
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._server = TestServer(app)

    @property
    def base_url(self) -> str:
        """What a client takes."""
        return str(self._server.make_url("/v1"))

    async def __aenter__(self) -> Dear:
        await self._server.start_server()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        said = orjson.loads(body)["messages"][1]["content"]
        records = orjson.loads(said)["records"]
        data = 0 if self.plain else len(orjson.dumps(said))
        await asyncio.sleep(0.05)
        text = orjson.dumps({"answers": [{"id": record["id"], "risk": 1, "grade": "good"} for record in records]}).decode()
        counted = data + round(self.rate * (len(body) - data))
        usage = {"prompt_tokens": counted, "completion_tokens": 20}
        self.billed += counted + 20
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"model": "dear", "choices": [choice], "usage": usage})


async def test_the_first_requests_to_an_endpoint_do_not_overrun_the_stop() -> None:
    """Many at once before anything was counted, of a server that counts a token for each byte: the budget holds."""
    budget, calls = Budget(120_000), list[Call]()
    budget.take(0, 1, {})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(64, lambda: 0.01))
    async with Dear() as server:
        scorer = chat(server.base_url, calls, gates=gates, price=PRICE)
        answers = await asyncio.gather(*(scorer.score(about(0), soon(30)) for _ in range(200)))
        await scorer.close()
    told = Counter(answer.status for (answer,) in answers)
    assert told["answered"] > 5
    assert told["budget"] > 5
    assert server.billed == budget.total(DAY) <= 120_000


async def test_records_that_suddenly_have_many_more_tokens_do_not_overrun_the_stop() -> None:
    """After plain text come digits, many at once: what was learned of the records before them bounds nothing."""
    budget = Budget(3_000_000)
    budget.take(0, 1, {})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(64, lambda: 0.01))
    wide = [Question("d", Wide(number=1, digits="0123456789abcdef" * 300), 0)]
    async with Dear(0.25) as server:
        scorer = chat(server.base_url, gates=gates, price=PRICE)
        server.plain = True
        for _ in range(20):
            await scorer.score(wide, soon(30))
        server.plain, before = False, server.billed
        budget.take(0, 1, {DAY: 2_940_000})
        answers = await asyncio.gather(*(scorer.score(wide, soon(30)) for _ in range(20)))
        await scorer.close()
    told = Counter(answer.status for (answer,) in answers)
    assert told["answered"] > 5
    assert told["budget"] > 5
    assert 2_940_000 + server.billed - before == budget.total(DAY) <= 3_000_000


async def test_a_partition_without_money_does_not_take_its_neighbours_with_it() -> None:
    """One call about three partitions: one is spent already, one has too little for its part, the third is answered."""
    budget, calls = Budget(90_000), list[Call]()
    budget.take(0, 3, {DAY: 30_000})
    budget.take(1, 3, {DAY: 29_999})
    budget.take(2, 3, {})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        scorer = WithinBudget(chat(server.base_url, calls, gates=gates, price=PRICE), budget, lambda: DAY)
        answers = await scorer.score(about(0, 1, 2, 2), soon(20))
        await scorer.close()
        assert server.meter.requests == 1
    assert statuses(answers) == ["budget", "budget", "answered", "answered"]
    assert "0.000001 of partition 1's 0.030000 USD are left" in answers[1].why


async def test_partitions_that_are_nearly_spent_are_left_out_and_all_others_asked_at_once() -> None:
    """Not one after the other: sixteen records of eight partitions, two of which have a crumb left, are one request of twelve.

    A reservation for fewer is dearer for each, so a partition may turn out to be short only without the first.
    """
    budget, calls = Budget(8 * 30_000), list[Call]()
    for partition, spent in enumerate((29_990, 0, 0, 29_400, 0, 0, 0, 0)):
        budget.take(partition, 8, {DAY: spent})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        scorer = WithinBudget(chat(server.base_url, calls, gates=gates, price=PRICE), budget, lambda: DAY)
        answers = await scorer.score(about(*range(8), *range(8)), soon(20))
        await scorer.close()
        assert server.meter.requests == 1
    assert statuses(answers) == ["budget" if n % 8 in (0, 3) else "answered" for n in range(16)]
    assert [len(call.records) for call in calls] == [12]
    assert "partition 0's" in answers[0].why
    assert sum(call.cost_micro or 0 for call in calls) == budget.total(DAY) - 29_990 - 29_400


async def test_who_could_not_be_asked_without_the_short_ones_in_time_is_late_and_not_refused_for_money() -> None:
    """A partition that has money is never told that it has none, whatever comes of asking about it."""
    budget = Budget(60_000)
    budget.take(0, 2, {DAY: 29_990})
    budget.take(1, 2, {})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(latency="0ms", schedule=("503",) * 9)) as server:
        scorer = WithinBudget(chat(server.base_url, gates=gates, price=PRICE), budget, lambda: DAY)
        assert statuses(await scorer.score(about(0, 1), soon(20))) == ["budget", "unavailable"]
        await scorer.close()


async def test_an_agent_without_a_budget_is_not_held() -> None:
    """Its neighbour's budget is its neighbour's."""
    gates = (BudgetGate({"another": Budget(1)}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        scorer = chat(server.base_url, gates=gates, price=PRICE)
        assert statuses(await scorer.score(about(0, 1), soon(20))) == ["answered"] * 2
        await scorer.close()


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 10**7), st.booleans())
def test_partitions_added_in_a_day_bring_no_more_than_their_own_parts(before: int, added: int, limit: int, kept: bool) -> None:
    """What a day may cost then is bounded: the limit, and the new partitions' parts by the new count. The next day is whole."""
    budget, after = Budget(limit), before + added

    def spend(day: str) -> int:
        whole = 0
        for partition in range(after):
            left = budget.left(partition, day)
            hold = budget.reserve({partition: 1}, left, day)
            if hold is not None:
                budget.settle(hold, left)
                whole += left
        return whole

    for partition in range(before):
        budget.take(partition, before, {})
    spent = spend(DAY)
    for partition in range(before if kept else 0, after):
        budget.take(partition, after, budget.spent(partition))
    assert spent + spend(DAY) <= limit + added * (limit // after)
    for partition in range(after):
        budget.take(partition, after, {})
    assert spend(NEXT) <= limit


async def test_records_of_a_partition_that_has_nothing_left_are_counted_as_refused() -> None:
    """Though no request is made for them: the alarm goes by this count."""
    budget = Budget(1000)
    budget.take(0, 1, {DAY: 1000})
    async with Sandbox() as server:
        scorer = WithinBudget(chat(server.base_url), budget, lambda: DAY)
        assert statuses(await scorer.score(about(0), soon(20))) == ["budget"]
        assert (server.meter.requests, budget.refused) == (0, 1)
        await scorer.close()
