"""Failover: who is asked next, after what, and what the answer says of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from models.contract import Answer, Paced, Question, Status
from models.routing.failover import ELSEWHERE, Candidate, Failover
from models.sandbox.server import Sandbox, SandboxConfig
from models.wrapper import Wrapper
from tests.support.scoring import Judged, chat, questions, soon, statuses

GOOD = Judged(risk=1, grade="good")


class Says:
    """A Scorer that says a status about each record by its number, after `seconds`, and remembers what it was asked."""

    def __init__(self, name: str, *said: Status, seconds: float = 0.0, room: bool = True) -> None:
        self.name = name
        self._said = said
        self._seconds = seconds
        self._room = room
        self.asked: list[list[str]] = []
        self.until: list[float] = []
        self.told: list[Callable[[], None]] = []
        self.closed = 0

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self.asked.append([question.decision_id for question in asked])
        now = asyncio.get_running_loop().time()
        self.until.append(deadline - now)
        late = self._seconds > deadline - now
        await asyncio.sleep(min(self._seconds, deadline - now))
        said = [self._said[int(question.decision_id[1:]) % len(self._said)] for question in asked]
        return [
            Answer("timeout") if late else Answer(status, GOOD if status == "answered" else None, model_requested=self.name)
            for status in said
        ]

    def room(self, coming: int = 0) -> bool:
        """See models.contract.Paced."""
        return self._room

    def on_room(self, tell: Callable[[], None]) -> None:
        """See models.contract.Paced."""
        self.told.append(tell)

    async def close(self) -> None:
        """See models.contract.Scorer."""
        self.closed += 1


def over(*scorers: Says, shut: Sequence[str] = (), trying: Sequence[str] = ()) -> Failover:
    """A failover over them; those in `shut` can not be asked now, and those of them in `trying` are coming back."""
    return Failover([
        Candidate(s, f"{s.name} at there", lambda s=s: s.name not in shut, lambda s=s: s.name in trying)  # type: ignore[misc]
        for s in scorers
    ])  # fmt: skip


async def test_only_what_the_endpoint_did_goes_on_to_the_next() -> None:
    """Every status: those about the record itself stand, the others are asked elsewhere, each once, in their order."""
    every: tuple[Status, ...] = (
        "answered", "invalid", "missing", "refused", "timeout", "unavailable", "limited", "rejected", "budget",
    )  # fmt: skip
    first, second, third = Says("a", *every), Says("b", "answered"), Says("c", "answered")
    failover = over(first, second, third)
    answers = await failover.score(questions(9), soon(30))
    assert statuses(answers) == ["answered" if status in ELSEWHERE else status for status in every]
    assert second.asked == [["d4", "d5", "d6", "d7"]]
    assert not third.asked
    assert [answer.model_requested for answer in answers[:5]] == ["a"] * 4 + ["b"]
    assert answers[5].tiers == ("a at there: unavailable",)
    assert answers[5].why == "a at there gave no answer (unavailable)"
    assert answers[0].tiers == ()
    assert [candidate.passed_on for candidate in failover.candidates] == [4, 0, 0]


async def test_where_nobody_answers_the_whole_way_is_told() -> None:
    """The last word counts, and names everybody before it."""
    failover = over(Says("a", "rejected"), Says("b", "timeout"), Says("c", "unavailable"))
    (answer,) = await failover.score(questions(1), soon(30))
    assert answer.status == "unavailable"
    assert answer.tiers == ("a at there: rejected", "b at there: timeout")
    assert answer.why == "b at there gave no answer (timeout: a at there gave no answer (rejected))"


async def test_an_outage_is_not_told_as_a_budget_that_is_spent() -> None:
    """Where the first is out and the next too dear, there is no answer for the outage; both are named."""
    (answer,) = await over(Says("a", "unavailable"), Says("b", "budget")).score(questions(1), soon(30))
    assert answer.status == "unavailable"
    assert answer.why == "a at there gave no answer (unavailable)"
    assert answer.tiers == ("a at there: unavailable",)


async def test_one_that_hangs_leaves_time_for_the_next() -> None:
    """The first has two thirds of the time; the last has all that is left."""
    first, second = Says("a", "answered", seconds=60), Says("b", "answered")
    answers = await over(first, second).score(questions(1), soon(0.9))
    assert statuses(answers) == ["answered"]
    assert first.until[0] == pytest.approx(0.6, abs=0.05)
    assert second.until[0] == pytest.approx(0.3, abs=0.1)


async def test_a_deadline_that_is_past_asks_nobody_else() -> None:
    """No request leaves that could not be answered."""
    first, second = Says("a", "timeout"), Says("b", "answered")
    assert statuses(await over(first, second).score(questions(1), soon(-math.inf))) == ["timeout"]
    assert not second.asked


def test_room_is_that_of_the_first_that_can_be_asked_now() -> None:
    """A limit at the preferred one makes records wait, not spill over; an endpoint that is out is not waited for."""
    full, free = Says("a", "answered", room=False), Says("b", "answered")
    assert not over(full, free).room()
    assert over(full, free, shut="a").room()
    assert over(full, free, shut="ab").room()
    assert not over(full, free, shut="ab", trying="b").room(), "one is coming back: it is worth waiting for"
    assert over(full, free, shut="a", trying="a").room(), "another one answers"
    assert isinstance(over(full, free), Paced)


async def test_all_are_listened_to_and_closed() -> None:
    """Room at any of them may be the room that is waited for."""
    first, second = Says("a", "answered"), Says("b", "answered")
    failover = over(first, second)
    failover.on_room(lambda: None)
    await failover.close()
    assert [len(s.told) for s in (first, second)] == [1, 1]
    assert [s.closed for s in (first, second)] == [1, 1]


@pytest.mark.parametrize("fault", ["500", "401", "403", "404", "307", "html", "reset", "empty", "truncated", "gzip"])
async def test_every_failure_of_an_endpoint_is_answered_by_the_next(fault: str) -> None:
    """Against a real server: each record is decided once, by the spare."""
    async with Sandbox(SandboxConfig(latency="0ms", faults={fault: 1.0})) as out, Sandbox(SandboxConfig(latency="0ms")) as spare:
        scorers = [chat(out.base_url, model="main"), chat(spare.base_url, model="spare")]
        failover = Failover([Candidate(scorer, scorer.name) for scorer in scorers])
        answers = await failover.score(questions(4), soon(30))
        await failover.close()
        assert spare.meter.records == 4
    assert statuses(answers) == ["answered"] * 4
    assert {answer.model_requested for answer in answers} == {"spare"}
    assert all("main gave no answer" in answer.why for answer in answers)


async def test_a_record_is_weighed_by_the_model_that_answers_at_present() -> None:
    """Tokens differ by model, so a batch is measured as who will read it; wrappers pass the weight on, and 0 is "unknown"."""

    class Weighs(Says):
        def weigh(self, features: BaseModel) -> int:
            return 7 if self.name == "a" else 9

    one = questions(1)[0].features
    assert over(Weighs("a"), Weighs("b")).weigh(one) == 7
    assert over(Weighs("a"), Weighs("b"), shut=["a"]).weigh(one) == 9
    assert over(Weighs("a"), Weighs("b"), shut=["a", "b"]).weigh(one) == 7
    assert over(Says("a")).weigh(one) == 0
    assert Wrapper(Wrapper(Weighs("a"))).weigh(one) == 7
    assert Wrapper(Says("a")).weigh(one) == 0


async def test_a_wrapper_passes_on_all_that_it_does_not_change() -> None:
    """Name, answers, room, who is told of it, and closing."""
    inner = Says("a", "answered", room=False)
    wrapper = Wrapper(inner)
    assert isinstance(wrapper, Paced)
    assert wrapper.name == "a"
    assert not wrapper.room()
    wrapper.on_room(print)
    assert inner.told == [print]
    assert statuses(await wrapper.score(questions(2), soon(5))) == ["answered", "answered"]
    await wrapper.close()
    assert inner.closed == 1
