"""The yardstick of the demo: a scorecard (binned logistic regression) fitted in plain Python on rows that are not replayed.

A model that asks for money and time has to beat this. It sees the same facts as the agents and, as they, no protected attribute.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.demo.datasets import Credit, GermanRow, Milling, MillingRow

Facts = Mapping[str, float | str]
"""One row as named facts. Numbers are cut into bins at quantiles, texts are classes."""

_BINS = 6
_RIDGE = 1.0
"""Weight of the penalty on squared coefficients: what keeps a class of three rows from an infinite weight."""
_STEPS = 25
_SETTLED = 1e-6


@dataclass(frozen=True, slots=True)
class Card:
    """A fitted scorecard: an intercept and a weight for each (fact, class)."""

    edges: Mapping[str, tuple[float, ...]]
    weights: Mapping[tuple[str, str], float]
    intercept: float

    def chance(self, facts: Facts) -> float:
        """The estimated probability of the positive class, 0..1. A class that was never met weighs nothing."""
        total = self.intercept + sum(self.weights.get(column, 0.0) for column in _columns(facts, self.edges))
        return _logistic(total)


def fit(rows: Sequence[Facts], positive: Sequence[bool]) -> Card:
    """Fit a card by Newton's method (IRLS) with a ridge penalty. Raises ValueError if one class is missing."""
    if len(rows) != len(positive):
        raise ValueError(f"fitting a scorecard: {len(rows)} rows but {len(positive)} labels")
    if not any(positive) or all(positive):
        raise ValueError("fitting a scorecard: both classes must be among the rows")
    edges = {name: _edges([float(row[name]) for row in rows]) for name, value in rows[0].items() if not isinstance(value, str)}
    coded = [_columns(row, edges) for row in rows]
    names = sorted({column for columns in coded for column in columns})
    place = {name: index + 1 for index, name in enumerate(names)}  # 0 is the intercept
    sparse = [[0, *(place[column] for column in columns)] for columns in coded]
    weights = _newton(sparse, positive, len(names) + 1)
    return Card(edges, {name: weights[place[name]] for name in names}, weights[0])


def credit_facts(row: GermanRow) -> Facts:
    """What the card knows of a loan: everything but sex and marital status, age, and being a foreign worker."""
    return {
        "checking_account": row.checking_account,
        "duration": row.duration,
        "credit_history": row.credit_history,
        "purpose": row.purpose,
        "amount": float(row.amount),
        "savings": row.savings,
        "employment_since": row.employment_since,
        "installment_rate": str(row.installment_rate),
        "other_debtors": row.other_debtors,
        "belongings": row.belongings,
        "other_installment_plans": row.other_installment_plans,
        "housing": row.housing,
        "existing_credits": str(min(row.existing_credits, 3)),
        "job": row.job,
    }


def milling_facts(row: MillingRow) -> Facts:
    """What the card knows of a reading: what was measured, and the three products that physics suggests."""
    return {
        "variant": row.variant,
        "heat": row.process_k - row.air_k,
        "speed": float(row.speed),
        "torque": row.torque,
        "wear": float(row.wear),
        "power": row.torque * row.speed * 2 * math.pi / 60,
        "strain": row.torque * row.wear,
    }


def credit_card(credit: Credit) -> Card:
    """The chance that a loan goes bad, fitted on the rows that are not replayed."""
    return fit([credit_facts(row) for row in credit.fit], [not credit.good[row.number] for row in credit.fit])


def milling_card(data: Milling) -> Card:
    """The chance that the machine fails at a reading, fitted on the tool lives that are not replayed."""
    rows = [row for life in data.fit for row in life.rows]
    return fit([milling_facts(row) for row in rows], [row.number in data.failures for row in rows])


def _edges(values: Sequence[float]) -> tuple[float, ...]:
    """Upper edges of quantile bins; the outer bins are cut finer, for what fails lies at the ends."""
    ordered = sorted(values)
    cuts = sorted({*(step / _BINS for step in range(1, _BINS)), 0.05, 0.95})
    return tuple(sorted({ordered[int(cut * (len(ordered) - 1))] for cut in cuts}))


def _columns(facts: Facts, edges: Mapping[str, tuple[float, ...]]) -> list[tuple[str, str]]:
    return [
        (name, value if isinstance(value, str) else str(bisect_right(edges[name], value))) for name, value in facts.items()
    ]


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _newton(rows: Sequence[Sequence[int]], positive: Sequence[bool], size: int) -> list[float]:
    """Weights that maximise the penalised likelihood; `rows` hold the columns that are 1. The intercept bears no penalty."""
    weights = [0.0] * size
    for _ in range(_STEPS):
        gradient = [0.0] + [-_RIDGE * w for w in weights[1:]]
        # A whisker on the intercept keeps the matrix regular: its column is the sum of the classes of each fact.
        hessian = [[0.0] * size for _ in range(size)]
        for index in range(size):
            hessian[index][index] = _RIDGE if index else 1e-9
        for columns, hit in zip(rows, positive, strict=True):
            p = _logistic(sum(weights[c] for c in columns))
            slack, curve = float(hit) - p, p * (1 - p)
            for c in columns:
                gradient[c] += slack
                line = hessian[c]
                for d in columns:
                    line[d] += curve
        step = _solve(hessian, gradient)
        weights = [w + s for w, s in zip(weights, step, strict=True)]
        if max(abs(s) for s in step) < _SETTLED:
            break
    return weights


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """x of matrix * x = right for a symmetric positive definite matrix, by Cholesky."""
    size = len(right)
    lower = [[0.0] * size for _ in range(size)]
    for i in range(size):
        row = lower[i]
        for j in range(i + 1):
            other = lower[j]
            rest = matrix[i][j] - sum(row[k] * other[k] for k in range(j))
            row[j] = math.sqrt(rest) if i == j else rest / other[j]
    half: list[float] = []
    for i in range(size):
        half.append((right[i] - sum(lower[i][k] * half[k] for k in range(i))) / lower[i][i])
    x = [0.0] * size
    for i in reversed(range(size)):
        x[i] = (half[i] - sum(lower[k][i] * x[k] for k in range(i + 1, size))) / lower[i][i]
    return x
