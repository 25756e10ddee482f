"""A user's own Python model as a Scorer."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import numpy as np
import pytest
from pydantic import field_validator
from sklearn.linear_model import LogisticRegression

from models.contract import Question
from models.scorers.instant import InstantScorer
from models.scorers.python_model import PythonScorer
from models.scorers.scorecard import Scorecard, Values
from tests.support.scoring import Judged, Shown, questions, soon, statuses


async def test_a_scikit_learn_estimator_answers() -> None:
    """A fitted estimator scores each record as it does outside of Headrace, off the event loop's thread."""
    numbers = np.arange(40).reshape(-1, 1)
    estimator = LogisticRegression().fit(numbers, numbers.ravel() >= 20)
    threads = set()

    def predict(many: list[Shown]) -> list[dict[str, Any]]:
        threads.add(threading.current_thread().name)
        shares = estimator.predict_proba([[one.number] for one in many])[:, 1]
        return [{"risk": round(100 * float(share)), "grade": "bad" if share > 0.5 else "good"} for share in shares]

    scorer = PythonScorer(predict, answer=Judged)
    answers = await scorer.score(questions(40), soon(10))
    await scorer.close()
    alone = estimator.predict_proba(numbers)[:, 1]
    assert [answer.value.risk for answer in answers if answer.value] == [round(100 * share) for share in alone]
    assert {(answer.tier, answer.model_returned) for answer in answers} == {("python", "predict")}
    assert threading.current_thread().name not in threads


def picky(many: list[Shown]) -> list[dict[str, Any]]:
    """Raises, drops an answer or says nonsense, as the number asks."""
    if any(one.number == 1 for one in many):
        raise KeyError("secret value")
    return [{"risk": 200 if one.number == 3 else 5, "grade": "good"} for one in many if one.number != 2]


async def test_a_record_that_breaks_the_model_spoils_only_itself() -> None:
    """An exception, a wrong count and an answer out of range each stay with their record, and no message quotes a value."""
    scorer = PythonScorer(picky, answer=Judged)
    answers = await scorer.score(questions(5), soon(5))
    await scorer.close()
    assert statuses(answers) == ["answered", "invalid", "invalid", "invalid", "answered"]
    assert "KeyError" in answers[1].why
    assert "0 answers to 1 records" in answers[2].why
    assert "risk" in answers[3].why
    assert "secret" not in repr(answers)


async def test_a_model_that_runs_past_the_deadline_is_a_timeout_and_the_loop_goes_on() -> None:
    """The loop is free while a model computes, and what comes too late is not taken."""
    release = threading.Event()

    def wait(many: list[Shown]) -> list[Judged]:
        release.wait(5)
        return [Judged(risk=1, grade="good") for _ in many]

    scorer = PythonScorer(wait, answer=Judged)
    start = asyncio.get_running_loop().time()
    answers = await scorer.score([Question("d", Shown(number=1))], soon(0.2))
    assert asyncio.get_running_loop().time() - start < 0.6
    release.set()
    await scorer.close()
    assert statuses(answers) == ["timeout"]


async def test_after_closing_it_is_unavailable() -> None:
    """A closed scorer answers, and says why not."""
    scorer = PythonScorer(picky, answer=Judged)
    await scorer.close()
    (answer,) = await scorer.score(questions(1), soon(1))
    assert answer.status == "unavailable"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_a_model_that_exits_spoils_only_its_record(kind: type[BaseException]) -> None:
    """It ends neither the process nor the call: whatever a function raises is the fault of the record it was given."""

    def leave(many: list[Shown]) -> list[dict[str, Any]]:
        if any(one.number == 1 for one in many):
            raise kind
        return [{"risk": 5, "grade": "good"} for _ in many]

    scorer = PythonScorer(leave, answer=Judged)
    answers = await scorer.score(questions(3), soon(5))
    await scorer.close()
    assert statuses(answers) == ["answered", "invalid", "answered"]
    assert answers[1].why == f"leave failed with {kind.__name__}"


@pytest.mark.parametrize("tier", ["instant", "scorecard"])
async def test_rules_that_exit_spoil_only_their_record(tier: str) -> None:
    """The same of scorers that answer in the event loop."""

    def leave(*_: Any) -> Judged:
        sys.exit()

    card: Scorecard[Judged] = Scorecard("rules", Judged, (Values("number", {}),), leave)
    scorer = card if tier == "scorecard" else InstantScorer(leave, name="rules")
    (answer,) = await scorer.score(questions(1), soon(5))
    assert (answer.status, "SystemExit" in answer.why) == ("invalid", True)


class Checked(Judged):
    """Its validator fails in a way that pydantic does not expect."""

    @field_validator("grade")
    @classmethod
    def _sound(cls, grade: str) -> str:
        raise KeyError("secret value")


async def test_a_validator_that_fails_is_told_by_the_type_of_its_error() -> None:
    """As of a language model's answer."""
    scorer = PythonScorer(picky, answer=Checked)
    (answer,) = await scorer.score(questions(1), soon(5))
    await scorer.close()
    assert (answer.status, answer.why) == ("invalid", "checking the answer of picky failed with KeyError")


async def test_what_waits_for_a_thread_when_it_is_closed_is_unavailable() -> None:
    """A function that runs is not waited for, and no other is begun."""
    begun, release = threading.Event(), threading.Event()
    seen = list[int]()

    def wait(many: list[Shown]) -> list[dict[str, Any]]:
        seen.append(many[0].number)
        begun.set()
        release.wait(5)
        return [{"risk": 1, "grade": "good"} for _ in many]

    scorer = PythonScorer(wait, answer=Judged)
    asked = [asyncio.ensure_future(scorer.score([question], soon(10))) for question in questions(2)]
    await asyncio.to_thread(begun.wait, 5)
    await scorer.close()
    await scorer.close()
    assert statuses(await asked[1]) == ["unavailable"]
    release.set()
    assert statuses(await asked[0]) == ["answered"]
    assert seen == [0]


@pytest.mark.parametrize("threads", [1, 3])
async def test_it_runs_in_as_many_threads_as_are_given(threads: int) -> None:
    """No fewer, or batches would wait for each other, and no more: the function may not stand it."""
    release, most, running = threading.Event(), [0], set[int]()

    def wait(many: list[Shown]) -> list[dict[str, Any]]:
        running.add(threading.get_ident())
        most[0] = max(most[0], len(running))
        if len(running) == threads:
            release.set()
        release.wait(5)
        running.discard(threading.get_ident())
        return [{"risk": 1, "grade": "good"} for _ in many]

    scorer = PythonScorer(wait, answer=Judged, threads=threads)
    answers = await asyncio.gather(*(scorer.score([question], soon(10)) for question in questions(6)))
    await scorer.close()
    assert [answer.status for one in answers for answer in one] == ["answered"] * 6
    assert most == [threads]


@pytest.mark.parametrize("said", [None, 7, "text", {"risk": 1}])
async def test_what_is_no_answer_is_invalid(said: Any) -> None:
    """Whatever a function gives in place of an answer is checked."""
    scorer = PythonScorer(lambda many: [said] * len(many), answer=Judged)
    answers = await scorer.score(questions(2), soon(5))
    await scorer.close()
    assert statuses(answers) == ["invalid", "invalid"]
