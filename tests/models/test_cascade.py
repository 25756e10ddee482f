"""The cascade: who is asked about what, which answer stands, and what is counted so that the bands can be judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agents.credit_risk import RiskAnswer
from agents.product_quality import QualityAnswer
from models.budget.budget import Budget
from models.budget.budget_gate import BudgetGate
from models.budget.prices import Price
from models.budget.within_budget import WithinBudget
from models.cache.cached import Cached
from models.cache.store import Scope, SqliteStore
from models.contract import Answer, Paced, Question, Status
from models.gates.slots import Slots
from models.routing.band import Agreement, says_insufficient
from models.routing.cascade import THRIFTY, Cascade, Tier
from models.sandbox.rules import RULES
from models.sandbox.server import Sandbox, SandboxConfig
from models.scorers.instant import InstantScorer
from schemas.errors import ConfigError
from tests.support.scoring import Judged, Shown, chat, questions, soon, statuses

DAY = "2026-05-01"
PRICE = Price(1_000_000, 1_000_000, 1_000_000)
"""A token costs one millionth: what the sandboxes metered is what was spent."""
Said = int | Status | Literal["insufficient"]


class Says:
    """A Scorer that says a risk, a status or that the information is insufficient, by the record's number."""

    def __init__(
        self, name: str, said: Mapping[int, Said] | Callable[[int], Said], *, tier: Any = "model", seconds: float = 0.0
    ) -> None:
        self.name = name
        self.asked: list[int] = []
        self.calls = 0
        self.until: list[float] = []
        self.closed = 0
        self._said = said if callable(said) else said.__getitem__
        self._tier = tier
        self._seconds = seconds

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        now = asyncio.get_running_loop().time()
        self.calls += 1
        self.until.append(deadline - now)
        await asyncio.sleep(max(0.0, min(self._seconds, deadline - now)))
        numbers = [int(question.decision_id[1:]) for question in asked]
        self.asked += numbers
        late = self._seconds > 0 and self._seconds > deadline - now
        return [self._answer(number, "timeout" if late else self._said(number)) for number in numbers]

    def _answer(self, number: int, said: Said) -> Answer[Any]:
        if isinstance(said, int) or said == "insufficient":
            risk, grade = (said, "good") if isinstance(said, int) else (0, "insufficient")
            value = Judged.model_validate({"risk": risk, "grade": grade})
            return Answer("answered", value, self._tier, call_id=f"{self.name}-{number}", model_requested=self.name)
        return Answer(said, why="so it is", model_requested=self.name)

    async def close(self) -> None:
        """See models.contract.Scorer."""
        self.closed += 1


def cascade(
    strong: Any, cheap: Any = None, card: Any = None, *, bands: tuple[tuple[float, float], tuple[float, float]] = ((30, 70),) * 2,
    **options: Any,
) -> Cascade:  # fmt: skip
    """A cascade on `risk`; nothing is sampled unless a test says so."""
    return Cascade(
        Judged, strong, field="risk", scorecard=Tier(card, bands[0]) if card else None,
        cheap=Tier(cheap, bands[1]) if cheap else None, **{"share": 0.0} | options,
    )  # fmt: skip


def risk(answer: Answer[Any]) -> int | None:
    """The risk of an answer."""
    return answer.value.risk if answer.value is not None else None


# ---- who is asked, and what stands -----------------------------------------------------------------------------------------


async def test_only_what_lies_inside_the_band_is_asked_of_the_next_tier() -> None:
    """Both ends are inside; whoever is asked is asked once, in one request, and each answer is at its record's place."""
    said: dict[int, Said] = {0: 29, 1: 30, 2: 50, 3: 70, 4: 71, 5: "insufficient"}
    card, cheap = Says("table", said, tier="scorecard"), Says("cheap", lambda n: 40 if n == 2 else 0)
    strong = Says("big", lambda n: 99)
    answers = await cascade(strong, cheap, card).score(questions(6), soon(5))
    assert (card.asked, cheap.asked, strong.asked) == ([0, 1, 2, 3, 4, 5], [1, 2, 3, 5], [2])
    assert [risk(answer) for answer in answers] == [29, 0, 99, 0, 71, 0]
    assert [answer.tier for answer in answers] == ["scorecard", "model", "model", "model", "scorecard", "model"]
    assert [answer.tiers for answer in answers] == [
        ("scorecard: 29",), ("scorecard: 30 in 30-70", "cheap: 0"), ("scorecard: 50 in 30-70", "cheap: 40 in 30-70", "big: 99"),
        ("scorecard: 70 in 30-70", "cheap: 0"), ("scorecard: 71",), ("scorecard: insufficient", "cheap: 0"),
    ]  # fmt: skip
    assert answers[0].why == "scorecard is certain: risk 29 is outside 30-70"
    assert answers[2].why == "scorecard is not certain: risk 50 in 30-70; cheap is not certain: risk 40 in 30-70"
    assert answers[5].why.startswith("scorecard says that its information is insufficient; cheap is certain")


@pytest.mark.parametrize("status", ["timeout", "unavailable", "limited", "rejected", "budget", "refused", "invalid", "missing"])
async def test_an_uncertain_answer_never_stands_because_the_model_is_away(status: Status) -> None:
    """The record has no answer, with the status of the tier that was to give it; a certain one is not touched."""
    cheap, strong = Says("cheap", {0: 50, 1: 5}), Says("big", lambda n: status)
    uncertain, certain = await cascade(strong, cheap).score(questions(2), soon(5))
    assert (uncertain.status, uncertain.value, uncertain.model_requested) == (status, None, "big")
    assert uncertain.tiers == ("cheap: 50 in 30-70", f"big: {status}")
    assert uncertain.why == "so it is; cheap is not certain: risk 50 in 30-70"
    assert risk(certain) == 5


@pytest.mark.parametrize("status", ["timeout", "unavailable", "budget", "refused", "invalid"])
async def test_a_cheap_model_that_gives_no_answer_is_followed_by_the_strong_one(status: Status) -> None:
    """Whatever the reason; the answer says so."""
    (answer,) = await cascade(Says("big", {0: 50}), Says("cheap", {0: status})).score(questions(1), soon(5))
    assert risk(answer) == 50
    assert answer.tiers == (f"cheap: {status}", "big: 50")
    assert answer.why == f"cheap gave no answer ({status}: so it is)"


async def test_a_tier_that_hangs_leaves_time_for_the_next() -> None:
    """Whoever is not the last gets two thirds of the time that is left."""
    card, cheap, strong = Says("table", lambda n: 50), Says("cheap", {0: 9}, seconds=60), Says("big", {0: 50})
    answers = await cascade(strong, cheap, card).score(questions(1), soon(1.2))
    assert statuses(answers) == ["answered"]
    assert card.until[0] <= 0.8
    assert 0.4 < cheap.until[0] <= 0.8
    assert 0 < strong.until[0] <= 0.45


async def test_a_deadline_that_is_past_asks_nobody_further() -> None:
    """What was certain stands, the rest is late, and no request leaves that could not be answered."""
    card, cheap, strong = Says("table", {0: 50, 1: 5}), Says("cheap", lambda n: 50), Says("big", lambda n: 50)
    answers = await cascade(strong, cheap, card).score(questions(2), soon(-1))
    assert statuses(answers) == ["timeout", "answered"]
    assert answers[0].tiers == ("scorecard: 50 in 30-70", "cheap: timeout", "big: timeout")
    assert not cheap.calls
    assert not strong.calls


# ---- the sample ------------------------------------------------------------------------------------------------------------


async def test_a_share_of_the_certain_is_asked_too_and_the_better_answer_used() -> None:
    """The same records at each repeat, about as many as was said; agreement is counted by region, differences on the number."""
    cheap, strong = Says("cheap", lambda n: 10 if n % 2 else 90), Says("big", lambda n: 15 if n % 2 else 40)
    asked = cascade(strong, cheap, share=0.2)
    answers = await asked.score(questions(1000), soon(20))
    sampled = set(strong.asked)
    assert 150 < len(sampled) < 250
    for number, answer in enumerate(answers):
        assert risk(answer) == ((15 if number % 2 else 40) if number in sampled else (10 if number % 2 else 90))
    number = min(sampled)
    assert answers[number].tiers == (f"cheap: {10 if number % 2 else 90}, sampled", f"big: {risk(answers[number])}")
    cheap_stats, strong_stats = asked.stats
    odd = sum(number % 2 for number in sampled)
    even = len(sampled) - odd
    assert (cheap_stats.asked, cheap_stats.certain, cheap_stats.uncertain) == (1000, 1000, 0)
    assert cheap_stats.sampled == strong_stats.asked == len(sampled)
    assert cheap_stats.regions["below"] == Agreement(odd, odd, 5.0 * odd)
    assert cheap_stats.regions["above"] == Agreement(even, 0, 50.0 * even)
    assert cheap_stats.sample == Agreement(len(sampled), odd, 5.0 * odd + 50.0 * even)
    assert (cheap_stats.regions["above"].flipped, cheap_stats.regions["above"].mean_apart) == (even, 50.0)
    assert cheap_stats.regions["inside"].mean_apart == 0.0

    strong.asked.clear()
    await asked.score(questions(1000), soon(20))
    assert set(strong.asked) == sampled


async def test_what_is_uncertain_is_compared_too() -> None:
    """Whether asking further changes anything is seen where it is done anyway."""
    asked = cascade(Says("big", {0: 60, 1: 60, 2: "refused"}), Says("cheap", {0: 55, 1: "insufficient", 2: 50}))
    await asked.score(questions(3), soon(5))
    cheap, strong = asked.stats
    assert cheap.regions["inside"] == Agreement(1, 1, 5.0)
    assert cheap.regions["insufficient"] == Agreement(1, 0, 60.0)
    assert (cheap.tier, cheap.uncertain, strong.tier, strong.certain, strong.unanswered) == ("cheap", 3, "strong", 2, 1)


@pytest.mark.parametrize("status", ["timeout", "unavailable", "refused"])
async def test_a_sampled_record_keeps_its_certain_answer_where_the_next_tier_has_none(status: Status) -> None:
    """A measurement takes no answer away."""
    (answer,) = await cascade(Says("big", {0: status}), Says("cheap", {0: 5}), share=1.0).score(questions(1), soon(5))
    assert (answer.status, risk(answer), answer.model_requested) == ("answered", 5, "cheap")
    assert answer.tiers == ("cheap: 5, sampled", f"big: {status}")
    assert "was sampled; big gave no answer" in answer.why


# ---- thrift ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spare", [True, False])
async def test_where_the_budget_lets_no_strong_request_leave_the_cheap_answer_stands_if_it_may(spare: bool) -> None:
    """A soft limit goes down a tier, also where the strong request alone does not fit; without one there is no answer."""
    cheap, strong = Says("cheap", {0: 50, 1: "timeout"}), Says("big", {0: "budget", 1: "budget"})
    one, other = await cascade(strong, cheap, share=0.0, spare=spare).score(questions(2), soon(5))
    assert other.status == "budget", "there is nothing to go down to"
    if not spare:
        assert one.status == "budget"
        return
    assert (one.status, risk(one), one.model_requested) == ("answered", 50, "cheap")
    assert one.tiers == ("cheap: 50 in 30-70", "big: budget")
    assert THRIFTY in one.why


@pytest.mark.parametrize("status", ["unavailable", "timeout", "limited", "rejected", "refused", "invalid"])
async def test_an_uncertain_answer_never_stands_because_the_strong_model_is_silent(status: Status) -> None:
    """Also with a soft limit: only what a budget keeps from leaving is answered a tier lower."""
    cheap, strong = Says("cheap", {0: 50, 1: "insufficient"}), Says("big", {0: status, 1: status})
    answers = await cascade(strong, cheap, share=0.0, spare=True).score(questions(2), soon(5))
    assert [(answer.status, answer.value) for answer in answers] == [(status, None)] * 2


async def test_where_money_is_short_the_cheap_answer_stands_and_says_so() -> None:
    """The strong model is not asked about those records, not even as a sample; the others are asked as ever."""
    cheap, strong = Says("cheap", {0: 50, 1: 50, 2: 5, 3: "insufficient", 4: "refused"}), Says("big", lambda n: 60)
    asked = cascade(strong, cheap, share=1.0, thrifty=lambda question: question.decision_id != "d1")
    answers = await asked.score(questions(5), soon(5))
    assert strong.asked == [1]
    assert [risk(answer) for answer in answers] == [50, 60, 5, 0, None]
    assert [answer.status for answer in answers][-1] == "refused", "no answer is no answer, also where money is short"
    assert THRIFTY in answers[0].why
    assert THRIFTY in answers[3].why
    assert THRIFTY not in answers[2].why
    assert answers[0].tiers == ("cheap: 50 in 30-70",)
    assert (asked.stats[0].spared, asked.stats[0].sampled) == (2, 0)


async def test_without_a_cheap_model_thrift_changes_nothing() -> None:
    """A scorecard's uncertain answer never stands."""
    strong = Says("big", lambda n: 60)
    (answer,) = await cascade(strong, card=Says("table", {0: 50}, tier="scorecard"), thrifty=lambda q: True).score(
        questions(1), soon(5)
    )
    assert risk(answer) == 60
    (answer,) = await cascade(Says("big", {0: "budget"}), card=Says("table", {0: 50}), thrifty=lambda q: True).score(
        questions(1), soon(5)
    )
    assert answer.status == "budget"


# ---- every case ------------------------------------------------------------------------------------------------------------

TELLS = st.one_of(st.integers(0, 100), st.sampled_from(["insufficient", "unavailable", "refused", "timeout"]))
Case = tuple[Said, Said, Said, bool]


def expected(case: Case, *, has_card: bool, has_cheap: bool, sampled: bool) -> tuple[int | str | None, list[str]]:
    """What must come out of one record, and who must have been asked, told the long way round."""
    card, cheap, strong, short = case
    tiers = [("card", card)] * has_card + [("cheap", cheap)] * has_cheap + [("strong", strong)]
    asked: list[str] = []
    kept: int | None = None
    for place, (tier, said) in enumerate(tiers):
        asked.append(tier)
        last = place == len(tiers) - 1
        barred = has_cheap and short and place == len(tiers) - 2
        silent = isinstance(said, str) and said != "insufficient"
        certain = isinstance(said, int) and not 30 <= said <= 70
        number = 0 if said == "insufficient" else said
        if silent:
            if kept is not None:
                return kept, asked
            if last or barred:
                return said, asked
        elif last or barred or (certain and not sampled):
            return number, asked
        elif certain:
            assert isinstance(number, int)
            kept = number
    raise AssertionError("the last tier is the last")


@settings(deadline=None)
@given(
    cases=st.lists(st.tuples(TELLS, TELLS, TELLS, st.booleans()), min_size=1, max_size=12),
    tiers=st.sampled_from(["card", "cheap", "both"]),
    sampled=st.booleans(),
)
def test_every_record_is_answered_as_told(cases: list[Case], tiers: str, sampled: bool) -> None:
    """As many answers as questions, in order; nobody is asked about a record twice; an uncertain answer stands only where money
    is short; and the counts add up."""
    has_card, has_cheap = tiers != "cheap", tiers != "card"
    card, cheap, strong = (
        Says(name, {number: case[place] for number, case in enumerate(cases)})
        for place, name in enumerate(("card", "cheap", "big"))
    )
    asked = cascade(
        strong, cheap if has_cheap else None, card if has_card else None, share=1.0 if sampled else 0.0,
        thrifty=lambda question: cases[int(question.decision_id[1:])][3],
    )  # fmt: skip
    answers = asyncio.run(_ask(asked, len(cases)))
    assert len(answers) == len(cases)
    want = [expected(case, has_card=has_card, has_cheap=has_cheap, sampled=sampled) for case in cases]
    assert [answer.status if answer.value is None else risk(answer) for answer in answers] == [outcome for outcome, _ in want]
    for tier, scorer in (("card", card), ("cheap", cheap), ("strong", strong)):
        assert scorer.asked == [number for number, (_, who) in enumerate(want) if tier in who]
    for answer in answers:
        if answer.value is not None and answer.model_requested != "big":
            uncertain = 30 <= answer.value.risk <= 70 or answer.value.grade == "insufficient"
            assert uncertain == (THRIFTY in answer.why)
            assert not uncertain or answer.model_requested == "cheap"
    for stats in asked.stats:
        assert stats.asked == stats.certain + stats.uncertain + stats.unanswered
        assert stats.sampled <= stats.certain
        assert all(seen.agreed <= seen.compared for seen in stats.regions.values())


async def _ask(asked: Cascade, count: int) -> Sequence[Answer[Any]]:
    return await asked.score(questions(count), soon(5))


# ---- what can not work -----------------------------------------------------------------------------------------------------


class Judgement(BaseModel):
    """Numbers of every kind."""

    risk: int = Field(ge=0, le=100)
    share: float = Field(gt=0, lt=1)
    count: int = 0
    exact: Decimal = Decimal(0)
    text: str = ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"field": "count"}, "field 'count' is no bounded number of Judgement; those are: risk, share"),
        ({"field": "exact"}, "field 'exact' is no bounded number"),
        ({"field": "nothing"}, "field 'nothing' is no bounded number"),
        ({"cheap": Tier(Says("c", {}), (70, 30))}, "cheap model: the band 70 to 30 has to rise"),
        ({"cheap": Tier(Says("c", {}), (30, 101))}, "range, 0 to 100"),
        ({"scorecard": Tier(Says("c", {}), (-1, 30))}, "scorecard: the band -1 to 30"),
        ({"share": 1.5}, "share that is sampled is 1.5"),
        ({"cheap": None}, "nobody to ask before the strong model"),
    ],
)
def test_what_can_not_work_is_named_when_it_is_made(options: dict[str, Any], said: str) -> None:
    """With the words of whoever configured it in front."""
    right: dict[str, Any] = {"field": "risk", "cheap": Tier(Says("c", {}), (30, 70))}
    with pytest.raises(ConfigError, match=f"reading HEADRACE_AGENTS for x: .*{said}"):
        Cascade(Judgement, Says("big", {}), where="reading HEADRACE_AGENTS for x", **right | options)


class Grade(Enum):
    """A choice as an enumeration."""

    GOOD = "good"
    UNKNOWN = "insufficient-information"


class Graded(BaseModel):
    """An answer with an enumeration."""

    grade: Grade


@pytest.mark.parametrize(
    ("value", "insufficient"),
    [
        (RiskAnswer(sufficient=True, drivers=[], risk=50), False),
        (RiskAnswer(sufficient=False, drivers=[], risk=50), True),
        (QualityAnswer(cause="none", risk=0, assessment="insufficient"), True),
        (QualityAnswer(cause="none", risk=0, assessment="pass"), False),
        (Graded(grade=Grade.UNKNOWN), True),
        (Graded(grade=Grade.GOOD), False),
    ],
)
def test_an_answer_says_that_its_information_is_insufficient(value: BaseModel, insufficient: bool) -> None:
    """As the agents at hand say it."""
    assert says_insufficient(value) is insufficient


@pytest.mark.parametrize("said", [float("nan"), None, "much"])
async def test_an_answer_without_a_number_is_not_certain(said: Any) -> None:
    """A scorer of somebody's own may answer what validation would not have passed."""
    card: InstantScorer[Any] = InstantScorer(lambda f: Judged.model_construct(risk=said, grade="good"))
    strong = Says("big", {0: 5})
    (answer,) = await cascade(strong, card=card).score(questions(1), soon(5))
    assert (risk(answer), strong.asked) == (5, [0])


# ---- pace ------------------------------------------------------------------------------------------------------------------


class Full(Says):
    """A model that has room or not, and holds its answers back until it is let go."""

    def __init__(self, name: str, risk: int, room: bool) -> None:
        super().__init__(name, lambda n: risk)
        self.has_room = room
        self.go = asyncio.Event()
        self.tell: Callable[[], None] | None = None

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        await self.go.wait()
        return await super().score(asked, deadline)

    def room(self, coming: int = 0) -> bool:
        """See models.contract.Paced."""
        return self.has_room

    def on_room(self, tell: Callable[[], None]) -> None:
        """See models.contract.Paced."""
        self.tell = tell


async def test_a_strong_model_without_room_holds_reading_up_only_while_it_is_asked() -> None:
    """Its pace is not that of all records, and what it can not take does not pile up before it."""
    cheap, strong = Full("cheap", 50, True), Full("big", 50, False)
    asked, told = cascade(strong, cheap), list[int]()
    asked.on_room(lambda: told.append(1))
    assert isinstance(asked, Paced)
    assert asked.room()
    cheap.go.set()
    under_way = asyncio.ensure_future(asked.score(questions(1), soon(20)))
    await asyncio.sleep(0.01)
    assert not asked.room()
    strong.has_room = True
    assert asked.room()
    strong.has_room = False
    assert not asked.room()
    assert not told
    strong.go.set()
    await under_way
    assert told == [1]
    assert asked.room()
    cheap.has_room = False
    assert not asked.room()
    assert cheap.tell is not None
    assert strong.tell is not None


async def test_a_strong_model_that_is_out_holds_nothing_up() -> None:
    """What the cheap one is certain of goes on while the strong one is tried; once it is only slow, it is waited for."""
    out = [True]
    cheap, strong = Full("cheap", 50, True), Full("big", 50, False)
    asked = cascade(strong, cheap, away=lambda: out[0])
    cheap.go.set()
    under_way = asyncio.ensure_future(asked.score(questions(1), soon(20)))
    await asyncio.sleep(0.01)
    assert asked.room()
    out[0] = False
    assert not asked.room()
    strong.go.set()
    await under_way


async def test_without_a_cheap_model_room_is_that_of_the_strong_one_and_all_are_closed() -> None:
    """A scorecard has no pace."""
    card, strong = Says("table", {}), Full("big", 50, False)
    asked = cascade(strong, card=card)
    assert not asked.room()
    strong.has_room = True
    assert asked.room()
    await asked.close()
    assert (card.closed, strong.closed, asked.name) == (1, 1, "big")


# ---- over HTTP -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sandboxes answer with the record's number as its risk."""
    monkeypatch.setitem(RULES, "Judged", lambda features: {"risk": features["number"] % 101, "grade": "good"})


@pytest.mark.usefixtures("by_number")
async def test_two_servers_are_asked_what_concerns_them() -> None:
    """By their own meters: the cheap one all records, the strong one those inside the band and nothing else."""
    async with Sandbox(SandboxConfig(latency="0ms")) as small, Sandbox(SandboxConfig(latency="0ms")) as big:
        asked = cascade(chat(big.base_url, model="big"), chat(small.base_url, model="small"))
        answers = await asked.score(questions(100), soon(30))
        await asked.close()
        assert (small.meter.records, big.meter.records, big.meter.requests) == (100, 41, 1)
    assert [risk(answer) for answer in answers] == list(range(100))
    assert [answer.model_requested for answer in answers] == ["big" if 30 <= n <= 70 else "small" for n in range(100)]
    assert asked.stats[0].regions["inside"] == Agreement(41, 41, 0.0)


@pytest.mark.usefixtures("by_number")
@pytest.mark.parametrize("fault", ["500", "401", "reset", "html", "refusal"])
async def test_a_server_that_is_out_costs_what_depends_on_it(fault: str) -> None:
    """Without the cheap one the strong one answers all; without the strong one the certain are answered, the others are not."""
    out, well = SandboxConfig(latency="0ms", faults={fault: 1.0}), SandboxConfig(latency="0ms")
    for small_config, big_config in ((out, well), (well, out)):
        async with Sandbox(small_config) as small, Sandbox(big_config) as big:
            asked = cascade(chat(big.base_url, model="big"), chat(small.base_url, model="small"))
            answers = await asked.score(questions(100)[25:35], soon(30))
            await asked.close()
        said = [answer.model_requested for answer in answers if answer.status == "answered"]
        assert said == (["big"] * 10 if small_config is out else ["small"] * 5)
        assert all(answer.value is None for answer in answers[5:] if small_config is well)


@pytest.mark.usefixtures("by_number")
async def test_both_limits_of_the_budget_by_the_meters_of_the_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is composed: both models until the soft limit, the cheap one alone until the hard one, then nobody; a partition that
    has money left is asked as before; and what is in the cache costs nothing and is there even then."""
    monkeypatch.setattr("models.cache.store._PATIENCE", 30.0)
    budget = Budget(2 * 20_000, soft=0.5)
    budget.take(0, 2, {})
    budget.take(1, 2, {})
    gates = (BudgetGate({"test": budget}, PRICE, lambda: DAY), Slots(8, lambda: 0.01))
    store = SqliteStore(tmp_path / "cache.sqlite", most_bytes=1_000_000, most_age=1e6)
    async with Sandbox(SandboxConfig(latency="0ms")) as small, Sandbox(SandboxConfig(latency="0ms")) as big:
        tiers = [
            Cached(WithinBudget(chat(server.base_url, gates=gates, price=PRICE, model=name), budget, lambda: DAY), store, Judged,
                   Scope("bank", "test", "m1"))
            for server, name in ((small, "small"), (big, "big"))
        ]  # fmt: skip
        asked = cascade(tiers[1], tiers[0], thrifty=lambda question: budget.thrifty(question.partition, DAY))

        def fresh(number: int, partition: int = 0) -> Question:
            return Question(f"d{number}", Shown(number=40, note=f"n{number}"), partition)

        said: list[str] = []
        for number in range(200):
            thrifty, before = budget.thrifty(0, DAY), big.meter.requests
            assert thrifty == (budget.spent(0)[DAY] >= 10_000 if number else False)
            (answer,) = await asked.score([fresh(number)], soon(30))
            said.append(answer.model_requested or "none" if answer.status == "answered" else answer.status)
            assert (THRIFTY in answer.why) == (said[-1] == "small")
            assert not thrifty or big.meter.requests == before
        strong, cheap = said.count("big"), said.count("small")
        assert said == ["big"] * strong + ["small"] * cheap + ["budget"] * (200 - strong - cheap)
        assert strong > 3
        assert cheap > strong
        metered = sum(server.meter.input_tokens + server.meter.output_tokens for server in (small, big))
        assert 15_000 < metered <= budget.total(DAY) <= 20_000
        (again, other) = await asked.score([fresh(0), fresh(1, partition=1)], soon(30))
        assert (again.status, again.cache) == ("answered", "hit")
        assert (other.status, other.cache) == ("answered", "hit")
        (other,) = await asked.score([fresh(999, partition=1)], soon(30))
        assert (other.model_requested, other.cache) == ("big", None)
        assert metered < sum(server.meter.input_tokens + server.meter.output_tokens for server in (small, big))
        await asked.close()
    assert store.stats.errors == 0
