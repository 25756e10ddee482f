"""The comparison counts what it says, checked on decisions made up to have known figures."""

from __future__ import annotations

from typing import Any

import pytest

from agents.demo.baseline import credit_card, milling_card
from agents.demo.compare import compare_credit, compare_quality
from agents.demo.datasets import german_credit, milling
from agents.demo.drafts import Planned, What
from agents.demo.ledger import Seen
from agents.demo.metrics import Share
from schemas.decision import Decision, Source, Subject

CREDIT, MILLING = german_credit(), milling()
CREDIT_CARD, MILLING_CARD = credit_card(CREDIT), milling_card(MILLING)


def _seen(row: int, what: What = "application", **decided: Any) -> Seen:
    decision = Decision(
        id=f"{what}-{row}", agent="a", version=1, manifest="m", subject=Subject(type="t", id=str(row)),
        source=Source(topic="t", partition=0, offset=row, input_hash="h"), tier="model", received_at="", decided_at="",
    ).model_copy(update=decided)  # fmt: skip
    return Seen(decision, Planned("t", what, str(row), row, None, None, 0.0), 1.0)


def test_an_oracle_is_found_to_be_one() -> None:
    """Decisions that know the label approve only repaid loans, agree always and rank without a mistake."""
    rows = CREDIT.replay[:100]
    good = {row.number: CREDIT.good[row.number] for row in rows}
    decided = [_seen(n, outcome="approve" if ok else "decline", score=10.0 if ok else 90.0) for n, ok in good.items()]
    found = compare_credit(decided, CREDIT, CREDIT_CARD)
    assert found.repaid == Share(sum(good.values()), 100)
    assert found.approved_repaid == Share(sum(good.values()), sum(good.values()))
    assert found.agreement == Share(100, 100)
    assert found.agent.value == 1.0
    assert found.card.value is not None
    assert found.card.value < 1.0
    assert found.card_repaid.count == found.approved_repaid.count


def test_amendments_and_retractions_have_no_label() -> None:
    """Only the first decision on an application as it was asked for is compared."""
    row = CREDIT.replay[0]
    decided = [
        _seen(row.number, outcome="approve", score=1.0),
        _seen(row.number, "amendment", outcome="decline", score=99.0),
        _seen(row.number, "deletion", kind="retraction"),
    ]
    assert compare_credit(decided, CREDIT, CREDIT_CARD).repaid.count == 1


def test_reviews_are_neither_right_nor_wrong() -> None:
    """A review counts in base and group rates, not in the agreement."""
    decided = [_seen(row.number, outcome="review") for row in CREDIT.replay[:10]]
    found = compare_credit(decided, CREDIT, CREDIT_CARD)
    assert found.agreement == Share(0, 0)
    assert found.repaid.count == 10
    assert found.agent.value is None


def test_approval_rates_cover_every_decided_application_once_per_grouping() -> None:
    """The groups of a grouping add up to all first decisions, and their approvals to all approvals."""
    decided = [_seen(row.number, outcome="approve" if row.number % 3 else "review") for row in CREDIT.replay]
    found = compare_credit(decided, CREDIT, CREDIT_CARD)
    approved = sum(1 for seen in decided if seen.decision.outcome == "approve")
    for groups in (found.by_sex, found.by_age):
        assert sum(share.count for share in groups.values()) == len(decided)
        assert sum(share.hits for share in groups.values()) == approved
    assert set(found.by_sex) == {"female", "male"}


def test_a_perfect_eye_catches_every_failure() -> None:
    """Alarms on exactly the failed pieces catch all failures with no false alarm; the scorecard gets as many alarms."""
    rows = [row for life in MILLING.replay for row in life.rows]
    failed = [row for row in rows if row.number in MILLING.failures]
    decided = [_seen(row.number, "reading", outcome="stop", score=99.0, result={"product": row.product}) for row in failed]
    found = compare_quality(decided, [row.number for row in rows], MILLING, MILLING_CARD)
    assert found.failed == Share(len(failed), len(rows))
    assert found.caught == Share(len(failed), len(failed))
    assert found.alarms_failed == Share(len(failed), len(failed))
    assert found.judged_failed == Share(len(failed), len(failed)), "the base rate of the judged is not that of all readings"
    assert found.card_caught.count == len(failed)
    assert 0 < found.card_caught.hits < len(failed)


@pytest.mark.parametrize("result", [None, {"product": None}, {"product": "X1"}])
def test_a_decision_about_no_known_piece_is_left_out(result: dict[str, Any] | None) -> None:
    """Without a piece of the data set there is no label to compare with."""
    found = compare_quality([_seen(1, "reading", outcome="stop", result=result)], [], MILLING, MILLING_CARD)
    assert found.judged == 0
