"""The judgement of a decision: what was shown, what came back, on which way, and under which key."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field

from agents.engine.pipeline import Pipeline
from agents.engine.verdicts import Masked, Site, unmasked
from models.contract import Answer, Question
from models.scorers.python_model import PythonScorer
from schemas.audit import Judgement
from tests.support.scoring import soon
from tests.support.simple_agent import OrderAnswer, OrderFeatures, Scripted, order, simple_agent

ANSWERED: Answer[Any] = Answer("answered", OrderAnswer(risk=7, verdict="accept"), raw={"risk": "7"}, call_id="c1", position=3)


def judged(
    answer: Answer[Any], *, fallback: bool = False, wish: str = "", masked: Masked = unmasked,
    answers: type[OrderAnswer] = OrderAnswer,
) -> tuple[Judgement, bytes | None, str]:
    """The judgement, its key and the decision's id of one record that was answered so."""
    agent = simple_agent(Scripted(), answer_model=answers)
    pipeline = Pipeline(agent, Site(manifest="m"), dead_letters="dlq", judgements="j", joins=None, wall_ms=lambda: 1,
                        masked=masked)  # fmt: skip
    (item,) = pipeline.read(pipeline.new_state(0), order("a", 5, wish))
    item.joins = {}
    pipeline.prepare(item)
    if item.settled is None:
        pipeline.conclude(item, answer, fallback=fallback)
    assert item.settled is not None
    decision, audit = item.settled.outbound
    assert (audit.topic, audit.purpose) == ("j", "audit")
    return Judgement.model_validate_json(audit.value or b""), audit.key, orjson.loads(decision.value or b"")["id"]


def test_what_was_shown_and_answered_is_kept() -> None:
    """Features, the answer as it came and as it was understood, call and position; the key is the decision's id."""
    found, key, id = judged(ANSWERED)
    assert (found.decision_id, key) == (id, id.encode())
    assert found.features == {"who": "a", "amount": 5, "wish": ""}
    assert (found.raw_answer, found.answer) == ({"risk": "7"}, {"risk": 7, "verdict": "accept"})
    assert (found.call_id, found.position, found.tiers, found.status, found.cache) == ("c1", 3, ["model"], "answered", None)
    assert (found.proposed_outcome, found.outcome, found.rules) == ("accept", "accept", [])


def test_masked_features_are_kept_as_they_were_shown() -> None:
    """Where something masked the features on their way, the audit has the masks, not what was behind them."""
    found, _, _ = judged(Answer("answered", ANSWERED.value, shown={"who": "p-81f3", "amount": 5}))
    assert found.features == {"who": "p-81f3", "amount": 5}


class Noted(OrderAnswer):
    """An answer with a text, in which a model may say again what it was shown."""

    note: str


def test_the_answer_about_a_masked_record_is_kept_as_it_was_said() -> None:
    """Its real values are put back for the policy alone; in the audit, mask and fields of ours are what is left of it."""
    answer = Answer(
        "answered", Noted(risk=7, verdict="accept", note="Jane Doe pays"), shown={"who": "[NAME_1]"},
        raw={"risk": 7, "verdict": "accept", "note": "[NAME_1] pays", "beside": 1},
    )  # fmt: skip
    found, _, _ = judged(answer)
    assert found.answer == {"risk": 7, "verdict": "accept", "note": "[NAME_1] pays"}
    assert "Jane" not in found.model_dump_json()


class Told(OrderAnswer):
    """Numbers and a choice, and texts that a scorecard may have copied from what it saw."""

    share: Decimal
    notes: list[str]


@pytest.mark.parametrize("tier", ["scorecard", "python"])
def test_of_an_answer_that_saw_more_than_may_be_kept_no_text_is(tier: Any) -> None:
    """Numbers and declared choices stay; of any other text that there was one. Where nothing is masked all of it is kept."""
    said = Told(risk=7, verdict="accept", share=Decimal("0.25"), notes=["Jane Doe", "accept"])
    raw = {"points": 7, "parts": {"late": 2.5}, "verdict": "accept", "why": ("Jane Doe",), "sure": True, "gone": None}
    answer = Answer[Any]("answered", said, tier, raw=raw)
    found, _, _ = judged(answer, masked=lambda features: {"who": "p-81f3"})
    assert found.answer == {"risk": 7, "verdict": "accept", "share": "0.25", "notes": ["[TEXT]", "accept"]}
    whole, part = raw | {"why": ["[TEXT]"]}, {"verdict": "accept", "[TEXT]": 5}
    assert found.raw_answer == (whole if tier == "scorecard" else part)  # a scorecard's names are of its table
    assert "Jane" not in found.model_dump_json()
    bare, _, _ = judged(answer)
    assert (bare.answer, bare.raw_answer) == (said.model_dump(mode="json"), raw | {"why": ["Jane Doe"]})


class Closed(OrderAnswer):
    """Takes no other fields."""

    model_config = ConfigDict(extra="forbid")

    by: dict[int, float]


class Part(BaseModel):
    """A field of a field, under another name on the outside."""

    of_it: int = Field(alias="ofIt")


class Parted(OrderAnswer):
    """Names at any depth, of the type's own and of whoever answers."""

    model_config = ConfigDict(extra="allow")

    parts: list[Part]
    by: dict[str, float]
    grades: dict[Literal["good", "bad"], int]


@pytest.mark.parametrize("tier", ["scorecard", "python"])
def test_of_the_names_in_an_answer_only_those_of_its_type_are_kept(tier: Any) -> None:
    """Fields at any depth under either of their names and declared choices; all others are counted, whatever holds them."""
    said = Parted.model_validate({
        "risk": 7, "verdict": "accept", "parts": [{"ofIt": 1}], "by": {"jane@bank.com": 0.4, "joe@bank.com": 0.6},
        "grades": {"good": 1}, "jane@bank.com": {"risk": 1},
    })  # fmt: skip
    answer = Answer[Any]("answered", said, tier, raw=None if tier == "scorecard" else said.model_dump(by_alias=True))
    found, _, _ = judged(answer, masked=lambda features: {"who": "p-81f3"}, answers=Parted)
    kept = {"risk": 7, "verdict": "accept", "by": {"[TEXT]": 2}, "grades": {"good": 1}, "[TEXT]": 1}
    assert found.answer == kept | {"parts": [{"of_it": 1}]}
    assert found.raw_answer == (None if tier == "scorecard" else kept | {"parts": [{"ofIt": 1}]})
    assert "bank" not in found.model_dump_json()


async def test_what_a_python_model_answers_invalidly_names_nothing_that_it_saw() -> None:
    """Neither in the raw answer nor in the reason."""
    model = PythonScorer(lambda many: [{"jane@bank.com": 0.4, "risk": 1, "verdict": "accept", "by": {4111111111111111: "x"}}],
                         answer=Closed, name="rules")  # fmt: skip
    (answer,) = await model.score([Question("d", OrderFeatures(who="a", amount=1, wish=""))], soon(5))
    await model.close()
    found, _, _ = judged(answer, masked=lambda features: {"who": "p-81f3"}, answers=Closed)
    assert (found.status, found.raw_answer) == ("invalid", {"risk": 1, "verdict": "accept", "by": {"[TEXT]": 1}, "[TEXT]": 1})
    assert answer.why == "rules gave no valid by.(unknown), (unknown)"


@pytest.mark.parametrize(
    ("answer", "fallback", "tiers"),
    [
        (Answer("answered", ANSWERED.value, tiers=("scorecard", "model")), False, ["scorecard", "model"]),
        (Answer("answered", ANSWERED.value, tier="scorecard"), True, ["fallback"]),
        (Answer("timeout", why="too late", tiers=("scorecard", "model")), False, ["scorecard", "model", "none"]),
    ],
)
def test_the_way_through_the_tiers_is_kept(answer: Answer[Any], fallback: bool, tiers: list[str]) -> None:
    """In order, those inside a cascade among them, and last the one that decided."""
    assert judged(answer, fallback=fallback)[0].tiers == tiers


def test_a_cached_answer_says_so() -> None:
    """The origin in the cache, and the call that the answer once came from."""
    found, _, _ = judged(Answer("answered", ANSWERED.value, call_id="old", cache="hit", endpoint="http://m/v1"))
    assert (found.cache, found.call_id, found.endpoint) == ("hit", "old", "http://m/v1")


def test_no_answer_and_a_rule_are_told_apart() -> None:
    """Without an answer the status says how asking ended; a rule before the model was never asked."""
    late, _, _ = judged(Answer("timeout", why="no answer before the deadline"))
    assert (late.status, late.why, late.answer, late.outcome) == ("timeout", "no answer before the deadline", None, "review")
    ruled, _, _ = judged(ANSWERED, wish="rule")
    assert (ruled.status, ruled.features, ruled.tiers, ruled.rules) == (None, None, ["rule"], ["asked-for-rule"])
