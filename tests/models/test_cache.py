"""The cache: asked once, kept only where it is an answer of the preferred model, shared by those who ask at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from models.cache.cached import Cached
from models.cache.store import Scope, SqliteStore, StoreStats
from models.contract import Answer, Paced, Question, Status
from models.routing.failover import Candidate, Failover
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import Judged, Shown, chat, questions, soon, statuses

SCOPE = Scope("bank", "test", "m1")


class Memory:
    """An AnswerStore in memory, that can be told to be slow."""

    def __init__(self) -> None:
        self.stats = StoreStats()
        self.bodies: dict[bytes, bytes] = {}
        self.may_put = asyncio.Event()
        self.may_put.set()

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See AnswerStore."""
        await asyncio.sleep(0)
        return {key: self.bodies[key] for key in keys if key in self.bodies}

    async def put(self, scope: Scope, entries: Mapping[bytes, bytes]) -> int:
        """See AnswerStore."""
        await self.may_put.wait()
        self.bodies.update(entries)
        return len(entries)

    def hold(self) -> None:
        """See AnswerStore."""

    async def close(self) -> None:
        """See AnswerStore."""


class Model:
    """Answers by the number in the features, or says the next of `said`; holds its answers back while `held`."""

    name = "m"

    def __init__(self, *said: Status, by: str = "m") -> None:
        self.asked: list[list[str]] = []
        self.numbers: list[int] = []
        self.closed = 0
        self.held: asyncio.Event | None = None
        self._said = list(said)
        self._by = by

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self.asked.append([question.decision_id for question in asked])
        numbers = [question.features.model_dump()["number"] for question in asked]
        self.numbers += numbers
        said: list[Status] = [self._said.pop(0) if self._said else "answered" for _ in asked]
        call = f"c{len(self.asked)}"
        await asyncio.sleep(0)
        if self.held is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.held.wait()
            except TimeoutError:
                said = ["timeout"] * len(asked)
        return [self._answer(*one, call) for one in zip(said, range(len(asked)), numbers, strict=True)]

    def _answer(self, status: Status, position: int, number: int, call: str) -> Answer[Any]:
        if status != "answered":
            return Answer(status, why=f"said {status}", model_requested=self._by)
        raw = {"id": f"id{position}", "risk": number % 101, "grade": "good"}
        value = Judged(risk=number % 101, grade="good")
        return Answer(
            "answered", value, raw=raw, call_id=call, position=position, model_requested=self._by, model_returned="m-1",
            endpoint="there",
        )  # fmt: skip

    async def close(self) -> None:
        """See models.contract.Scorer."""
        self.closed += 1


def about(*numbers: int, ids: str = "d") -> list[Question]:
    """A question for each number; each record has an id of its own."""
    return [Question(f"{ids}{place}", Shown(number=number)) for place, number in enumerate(numbers)]


def cached(model: Any, store: Any = None, scope: Scope = SCOPE, answer: type[BaseModel] = Judged) -> Cached[Any]:
    """A cache around a model."""
    return Cached(model, store or Memory(), answer, scope)


def risks(answers: Sequence[Answer[Any]]) -> list[int | None]:
    """The risk of each answer."""
    return [answer.value.risk if answer.value is not None else None for answer in answers]


async def settled(cache: Cached[Any]) -> None:
    """Until what was answered is in the store."""
    while cache._putting:
        await asyncio.gather(*cache._putting)


# ---- what is found ---------------------------------------------------------------------------------------------------------


async def test_a_repeat_is_not_asked_and_says_where_it_is_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP and in a real file, also after a restart: same answer, same call, marked as a hit; the meter stands still."""
    monkeypatch.setattr("models.cache.store._PATIENCE", 30.0)
    calls = list[Call]()
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        for run in range(2):
            store = SqliteStore(tmp_path / "cache.sqlite", most_bytes=1_000_000, most_age=1e6)
            cache = cached(chat(server.base_url, calls), store)
            answers = list(await cache.score(questions(4), soon(20)))
            if run == 0:
                first, (call,) = answers, calls
                assert [answer.cache for answer in answers] == [None] * 4
            else:
                assert answers == [replace(answer, cache="hit") for answer in first]
                assert cache.stats.hits == 4
                answers = list(await cache.score([*questions(5), *questions(2)], soon(20)))
                assert [answer.cache for answer in answers] == ["hit"] * 4 + [None] + ["hit"] * 2
            await cache.close()
        assert (server.meter.requests, server.meter.records) == (2, 5)
    assert {answer.call_id for answer in first} == {call.call_id}
    assert store.stats.errors == 0


@pytest.mark.parametrize(
    "other",
    [
        Scope("shop", "test", "m1"), Scope("bank", "test", "m2"), Scope("bank", "test", "m1", "http://elsewhere/v1"),
        "another model", "another number", "masked otherwise",
    ],
)  # fmt: skip
async def test_another_tenant_manifest_model_or_question_finds_nothing(other: Scope | str) -> None:
    """The key is all of them; the record's id and partition are not in it."""
    store, model = Memory(), Model()
    cache = cached(model, store)
    (question,) = about(7)
    await cache.score([question], soon(5))
    await settled(cache)
    assert [a.cache for a in await cache.score([replace(question, decision_id="x", partition=3)], soon(5))] == ["hit"]
    asked = Model(by="m2" if other == "another model" else "m")
    asked.name = "m2" if other == "another model" else "m"
    if other == "another number":
        (question,) = about(8)
    if other == "masked otherwise":
        question = replace(question, shown={"number": 7, "note": "[name 1]"})
    second = cached(asked, store, other if isinstance(other, Scope) else SCOPE)
    assert [a.cache for a in await second.score([question], soon(5))] == [None]
    assert asked.numbers


async def test_the_masked_features_are_the_key_and_nothing_unmasked_is_kept() -> None:
    """Two records that look alike to the model are one question, whatever lies behind the masks."""
    store, model = Memory(), Model()
    cache = cached(model, store)
    one, other = (
        Question(f"d{n}", Shown(number=n, note=f"secret {n}"), shown={"note": "[name 1]", "number": 1}) for n in range(2)
    )
    await cache.score([one], soon(5))
    await settled(cache)
    (answer,) = await cache.score([replace(other, shown={"number": 1, "note": "[name 1]"})], soon(5))
    assert answer.cache == "hit", "the order of the fields says nothing"
    assert b"secret" not in b"".join(store.bodies.values())


class Odd(BaseModel):
    """Features that JSON can not hold exactly."""

    number: int
    text: str = ""


@pytest.mark.parametrize("odd", [Odd(number=2**70), Odd(number=1, text="half \ud800")])
async def test_what_can_not_be_written_is_asked_each_time(odd: Odd) -> None:
    """Nothing raises, nothing is kept, its neighbours are."""
    model = Model()
    cache = cached(model)
    for _ in range(2):
        answers = await cache.score([Question("a", odd), *about(1)], soon(5))
        await settled(cache)
        assert statuses(answers) == ["answered"] * 2
    assert [answer.cache for answer in answers] == [None, "hit"]
    assert model.numbers == [odd.number, 1, odd.number]
    assert (cache.stats.hits, cache.stats.misses, cache.stats.stored) == (1, 3, 1)


class Narrower(BaseModel):
    """The answer model of a later version."""

    risk: int = Field(ge=0, le=50)
    grade: str


@pytest.mark.parametrize("damage", ["cut", "a digit", "another's", "empty", "outdated"])
async def test_an_entry_that_is_damaged_or_outdated_is_asked_again(damage: str) -> None:
    """It is a miss, and the new answer takes its place."""
    store, model = Memory(), Model()
    cache = cached(model, store)
    await cache.score(about(77, 88), soon(5))
    await settled(cache)
    one, other = store.bodies
    body = store.bodies[one]
    store.bodies[one] = {
        "cut": body[:-5], "a digit": body.replace(b"77", b"78"), "another's": store.bodies[other], "empty": b"", "outdated": body,
    }[damage]  # fmt: skip
    again = cached(model, store, answer=Narrower if damage == "outdated" else Judged)
    (answer,) = await again.score(about(77), soon(5))
    await settled(again)
    assert (answer.status, answer.cache, answer.raw["risk"]) == ("answered", None, 77)
    assert (again.stats.hits, again.stats.misses) == (0, 1)
    if damage != "outdated":
        assert [a.cache for a in await again.score(about(77), soon(5))] == ["hit"]


# ---- what is kept ----------------------------------------------------------------------------------------------------------

NOT_KEPT: list[Status] = ["invalid", "missing", "refused", "timeout", "unavailable", "limited", "rejected", "budget"]


@pytest.mark.parametrize("status", NOT_KEPT)
async def test_only_answers_are_kept(status: Status) -> None:
    """Every failure is asked again the next time."""
    model = Model(status)
    cache = cached(model)
    assert statuses(await cache.score(about(1), soon(5))) == [status]
    await settled(cache)
    assert cache.stats.stored == 0
    (answer,) = await cache.score(about(1), soon(5))
    await settled(cache)
    assert (answer.status, answer.cache, cache.stats.stored) == ("answered", None, 1)


async def test_a_fallbacks_answer_is_not_kept() -> None:
    """Neither over a failover, nor where another model says that it answered; a scorecard's neither."""
    preferred, spare = Model("unavailable"), Model(by="spare")
    cache = cached(Failover([Candidate(preferred, "m at there"), Candidate(spare, "spare at there")]))
    (first,) = await cache.score(about(1), soon(5))
    (second,) = await cache.score(about(1), soon(5))
    await settled(cache)
    (third,) = await cache.score(about(1), soon(5))
    assert [first.model_requested, second.model_requested, third.cache] == ["spare", "m", "hit"]

    same_name = Model("unavailable")
    elsewhere = Failover([Candidate(same_name, "m at here"), Candidate(Model(), "m at there")])
    cache = cached(elsewhere)
    await cache.score(about(1), soon(5))
    await settled(cache)
    assert cache.stats.stored == 0

    router = Model(by="spare")  # an endpoint that was asked for one model, by a name that stands for several
    cache = cached(router)
    await cache.score(about(1), soon(5))
    await settled(cache)
    assert cache.stats.stored == 0

    class Card(Model):
        def _answer(self, *one: Any) -> Answer[Any]:
            return replace(super()._answer(*one), tier="scorecard")

    cache = cached(Card())
    await cache.score(about(1), soon(5))
    await settled(cache)
    assert cache.stats.stored == 0


# ---- asked at the same time ------------------------------------------------------------------------------------------------


async def test_equal_questions_are_asked_once_in_one_batch_and_across_calls() -> None:
    """One asks, all others share; they are told so, and each record's answer is at its place."""
    model = Model()
    cache = cached(model)
    batches = await asyncio.gather(*(cache.score(about(1, 2, 1, number), soon(5)) for number in (3, 4, 3)))
    assert Counter(model.numbers) == {1: 1, 2: 1, 3: 1, 4: 1}
    assert [risks(batch) for batch in batches] == [[1, 2, 1, 3], [1, 2, 1, 4], [1, 2, 1, 3]]
    told = [[answer.cache for answer in batch] for batch in batches]
    assert told == [[None, None, "shared", None], ["shared"] * 3 + [None], ["shared"] * 4]
    assert (cache.stats.misses, cache.stats.shared, cache.stats.hits) == (4, 8, 0)
    assert batches[1][0].call_id == batches[0][0].call_id


async def test_between_the_answer_and_the_disk_nobody_asks_again() -> None:
    """What is on its way into the store is shared meanwhile, and counted when it is there."""
    store, model = Memory(), Model()
    store.may_put.clear()
    cache = cached(model, store)
    await cache.score(about(1), soon(5))
    await cache.score(about(2), soon(5))
    assert [a.cache for a in await cache.score(about(1), soon(5))] == ["shared"]
    store.may_put.set()
    await settled(cache)
    assert [a.cache for a in await cache.score(about(1), soon(5))] == ["hit"]
    assert not cache._fresh
    assert cache.stats.stored == 2
    assert model.numbers == [1, 2]


async def test_when_the_one_who_asks_fails_one_other_asks() -> None:
    """A failure of passing is tried once more by one of those who wait, in one request for all questions."""
    model = Model("unavailable", "unavailable")
    cache = cached(model)
    first, second, third = await asyncio.gather(*(cache.score(about(1, 2, ids=ids), soon(5)) for ids in "abc"))
    assert statuses(first) == ["unavailable"] * 2
    assert statuses([*second, *third]) == ["answered"] * 4
    assert len(model.asked) == 2
    assert sorted(map(len, model.asked)) == [2, 2]
    assert not cache._flights


async def test_a_second_failure_is_everybodys_whose_time_is_no_longer() -> None:
    """Fifty who ask the same of a model that is away ask twice; one who had more time asks itself."""
    model = Model("unavailable", "unavailable", "unavailable")
    cache = cached(model)
    until = soon(5)
    batches = await asyncio.gather(
        *(cache.score(about(1), until) for _ in range(50)), cache.score(about(1), until + 1), cache.score(about(1), until + 2)
    )
    said = Counter(statuses([answer for batch in batches for answer in batch]))
    assert said == {"unavailable": 52}
    assert len(model.asked) == 2, "the one with the most time asked for all"
    assert [batch[0].why for batch in batches] == ["said unavailable"] * 52


async def test_a_deadline_that_was_shorter_is_nobody_elses() -> None:
    """Who had little time is late; who waited for it asks itself in the time that is left."""
    model = Model()
    model.held = asyncio.Event()
    cache = cached(model)
    short = asyncio.ensure_future(cache.score(about(1), soon(0.05)))
    await asyncio.sleep(0)
    long = asyncio.ensure_future(cache.score(about(1), soon(20)))
    assert statuses(await short) == ["timeout"]
    model.held.set()
    assert statuses(await long) == ["answered"]
    assert len(model.asked) == 2


async def test_nobody_waits_past_its_own_deadline() -> None:
    """Who has less time than the one who asks is late at its own time, and the other is not disturbed."""
    model = Model()
    model.held = asyncio.Event()
    cache = cached(model)
    long = asyncio.ensure_future(cache.score(about(1), soon(20)))
    await asyncio.sleep(0)
    (late,) = await cache.score(about(1), soon(0.05))
    assert late.status == "timeout"
    assert "asked by another" in late.why
    assert not long.done()
    model.held.set()
    assert statuses(await long) == ["answered"]
    assert len(model.asked) == 1


async def test_whoever_is_cancelled_takes_nobody_along() -> None:
    """The one who asks, the one whose turn it would be next, one who only waits: a third one is answered."""
    model = Model()
    model.held = asyncio.Event()
    cache = cached(model)
    async with asyncio.timeout(20):
        first, second, third, fourth = (asyncio.ensure_future(cache.score(about(1), soon(20 - n))) for n in range(4))
        await asyncio.sleep(0.01)
        fourth.cancel()
        first.cancel()
        second.cancel()  # in the same turn of the loop in which it is told to ask
        await asyncio.gather(first, second, fourth, return_exceptions=True)
        model.held.set()
        assert statuses(await third) == ["answered"]
    assert not cache._flights


async def test_a_batch_that_is_cancelled_ends_its_own_call() -> None:
    """Also one that waits for itself; nothing is left running, and the next one asks."""
    model = Model()
    model.held = asyncio.Event()
    cache = cached(model)
    async with asyncio.timeout(20):
        batch = asyncio.ensure_future(cache.score(about(1, 1, 2), soon(60)))
        await asyncio.sleep(0.01)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
    assert batch.cancelled()
    assert not cache._flights
    model.held.set()
    assert statuses(await cache.score(about(1), soon(5))) == ["answered"]


async def test_a_spent_budget_is_one_partitions_and_not_a_questions() -> None:
    """Everybody with money of its own asks itself, and the first to be answered answers all who still wait."""
    model = Model("budget", "budget", "budget")
    cache = cached(model)
    until = soon(5)
    batches = await asyncio.gather(*(cache.score(about(1), until) for _ in range(6)))
    assert Counter(statuses([batch[0] for batch in batches])) == {"budget": 3, "answered": 3}
    assert len(model.asked) == 4


async def test_a_defect_of_the_scorer_within_leaves_as_it_is() -> None:
    """What ends the process is not wrapped, and nobody is left waiting."""

    class Broken(Model):
        async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            await asyncio.sleep(0)
            raise ZeroDivisionError

    cache = cached(Broken())
    async with asyncio.timeout(20):
        said = await asyncio.gather(*(cache.score(about(1, 1, 2), soon(5)) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in said] == [ZeroDivisionError] * 3
    assert not cache._flights


@settings(deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=6),
    said=st.lists(st.sampled_from(["answered", "answered", "unavailable", "refused", "budget"]), max_size=12),
    spaced=st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_cached_equals_asked(batches: list[list[int]], said: list[Status], spaced: list[int]) -> None:
    """Whoever asks whatever beside whom: as many answers as questions, each its own question's; where nothing fails each distinct
    question is asked once, and where something does, nothing is asked that is answered already."""

    async def ask() -> None:
        model, store = Model(*said), Memory()
        cache = cached(model, store)

        async def later(batch: list[int], turns: int) -> Sequence[Answer[Any]]:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await cache.score(about(*batch), soon(5))

        answered = await asyncio.gather(*(later(batch, turns) for batch, turns in zip(batches, spaced, strict=False)))
        for batch, answers in zip(batches, answered, strict=True):
            assert len(answers) == len(batch)
            for number, answer in zip(batch, answers, strict=True):
                assert (answer.value is not None) == (answer.status == "answered")
                assert answer.value is None or answer.value.risk == number
        asked = Counter(model.numbers)
        if not any(status != "answered" for status in said):
            assert set(asked.values()) == {1}
        assert all(count <= sum(batch.count(number) for batch in batches) for number, count in asked.items())
        stats = cache.stats
        assert stats.misses == len(model.numbers)
        assert not cache._flights
        before = len(model.numbers)
        known = {number for batch, answers in zip(batches, answered, strict=True)
                 for number, answer in zip(batch, answers, strict=True) if answer.status == "answered"}  # fmt: skip
        again = await cache.score(about(*sorted(known)), soon(5))
        assert risks(again) == sorted(known)
        assert {answer.cache for answer in again} <= {"hit", "shared"}
        assert len(model.numbers) == before
        await cache.close()
        assert not cache._fresh
        assert len(store.bodies) == stats.stored == len(known)

    asyncio.run(ask())


# ---- the rest of the contract ----------------------------------------------------------------------------------------------


async def test_room_is_that_of_the_model_and_all_are_closed() -> None:
    """It paces as what it wraps does; it can be closed twice."""

    class Full(Model):
        told: Callable[[], None] | None = None

        def room(self, coming: int = 0) -> bool:
            return False

        def on_room(self, tell: Callable[[], None]) -> None:
            self.told = tell

    full, free = Full(), Model()
    cache = cached(full)
    assert not cache.room()
    cache.on_room(ask := lambda: None)
    assert full.told is ask
    assert cached(free).room()
    assert isinstance(cache, Paced)
    assert cache.name == "m"
    await cache.close()
    await cache.close()
    assert full.closed == 2
