"""The yardstick and its measures, checked against an independent implementation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from agents.demo import baseline, metrics
from agents.demo.datasets import german_credit, milling

scored = st.lists(st.tuples(st.integers(0, 20).map(float), st.booleans()), min_size=2, max_size=200)


@given(scored)
def test_auc_agrees_with_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    """The rank formula gives scikit-learn's area for any scores, ties included, and none where a class is missing."""
    found = metrics.auc(pairs)
    labels = [positive for _, positive in pairs]
    if all(labels) or not any(labels):
        assert found.value is None
        return
    assert found.value == pytest.approx(roc_auc_score(labels, [score for score, _ in pairs]))
    assert found.positives + found.negatives == len(pairs)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_of_a_share_holds_the_share(hits: int, more: int) -> None:
    """Wilson's interval contains the share itself and stays within 0..1."""
    found = metrics.Share(hits, hits + more)
    low, high = found.interval or (1.0, 0.0)
    assert 0 <= low <= (found.value or 0) <= high <= 1


def test_a_share_of_nothing_is_none() -> None:
    """No decisions, no rate: never a made-up zero."""
    assert metrics.Share(0, 0).value is None
    assert metrics.Share(0, 0).interval is None


def test_groups_are_counted_apart() -> None:
    """Each group's share is over that group's members only."""
    found = metrics.by_group([("b", True), ("a", False), ("b", False), ("b", True)])
    assert found == {"a": metrics.Share(0, 1), "b": metrics.Share(2, 3)}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_the_nearest_rank(values: list[float], q: float) -> None:
    """At least the share q lies at or below the quantile, and less than q below it."""
    found = metrics.quantile(values, q)
    assert found is not None
    assert sum(v <= found for v in values) >= q * len(values) - 1e-9
    assert sum(v < found for v in values) < q * len(values) + 1e-9


def test_the_card_agrees_with_scikit_learn() -> None:
    """On the same coded rows and penalty, every estimated chance agrees with scikit-learn's logistic regression."""
    dice = random.Random(7)
    rows: list[dict[str, float | str]] = [{"x": dice.gauss(0, 1), "kind": dice.choice("abc")} for _ in range(400)]
    positive = [dice.random() < 1 / (1 + math.exp(-(float(r["x"]) + (r["kind"] == "a")))) for r in rows]
    card = baseline.fit(rows, positive)
    columns = sorted(card.weights)

    def coded(row: dict[str, float | str]) -> list[float]:
        # A weight of one for a single class shows which class the card puts the row into.
        return [
            float(baseline.Card(card.edges, {column: 1.0}, 0.0).chance(row) > 0.5) for column in columns
        ]

    matrix = [coded(row) for row in rows]
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(matrix, positive)
    for row, (_, expected) in zip(rows, reference.predict_proba(matrix), strict=True):
        assert card.chance(row) == pytest.approx(expected, abs=1e-5)


def test_a_class_that_was_never_met_weighs_nothing() -> None:
    """A new class in the replay gets the intercept, not an error."""
    card = baseline.fit([{"kind": "a"}, {"kind": "b"}, {"kind": "a"}], [True, False, False])
    assert card.chance({"kind": "new"}) == pytest.approx(1 / (1 + math.exp(-card.intercept)))


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_one_class_alone_can_not_be_fitted(positive: list[bool]) -> None:
    """Labels of one kind teach nothing, and the message says so."""
    with pytest.raises(ValueError, match="both classes"):
        baseline.fit([{"x": 1.0}, {"x": 2.0}], positive)


def test_the_credit_card_beats_chance_on_rows_it_never_saw() -> None:
    """On the replayed loans its area is that of published logistic regressions on this data, 0.74 to 0.80, give or take noise."""
    credit = german_credit()
    card = baseline.credit_card(credit)
    found = metrics.auc((card.chance(baseline.credit_facts(r)), not credit.good[r.number]) for r in credit.replay)
    assert found.value is not None
    assert 0.70 < found.value < 0.85


def test_the_milling_card_beats_chance_on_tools_it_never_saw() -> None:
    """On the replayed tool lives it ranks failures far above the rest."""
    data = milling()
    card = baseline.milling_card(data)
    rows = [row for life in data.replay for row in life.rows]
    found = metrics.auc((card.chance(baseline.milling_facts(r)), r.number in data.failures) for r in rows)
    assert found.value is not None
    assert found.value > 0.88


def test_the_yardstick_sees_no_protected_attribute() -> None:
    """Sex and marital status, age and being a foreign worker are no facts of the card."""
    row = german_credit().replay[0]
    facts = baseline.credit_facts(row)
    assert not {"sex", "age", "age_band", "personal_status_and_sex", "foreign_worker"} & set(facts)
    assert row.personal_status_and_sex not in facts.values()
