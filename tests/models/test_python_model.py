"""A user's own Python model as a Scorer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.contract import Question
from models.scorers.python_model import PythonScorer
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


@pytest.mark.parametrize("said", [None, 7, "text", {"risk": 1}])
async def test_what_is_no_answer_is_invalid(said: Any) -> None:
    """Whatever a function gives in place of an answer is checked."""
    scorer = PythonScorer(lambda many: [said] * len(many), answer=Judged)
    answers = await scorer.score(questions(2), soon(5))
    await scorer.close()
    assert statuses(answers) == ["invalid", "invalid"]
