"""Records with what really happened: German Credit and AI4I 2020, as the agents' own functions show them to a model.

Of both data sets it is the half that is replayed (agents/demo/datasets.py); examples for prompts come from the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from agents import credit_risk, product_quality
from agents.demo import loans, readings
from agents.demo.datasets import GermanRow, ToolLife, deal, german_credit, milling
from agents.engine.trial import try_records
from models.contract import Answer, Ask, Question
from topics.record import Raw

EXAMPLES = 8
NOW_MS = 1_760_000_000_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """What an agent asks about, and whether the bad thing happened (`bad`): not repaid, or the machine failed.

    `ask` is the agent's own; `examples` are lines for a prompt: features with what happened, from other records.
    """

    name: str
    ask: Ask[Any]
    questions: Sequence[Question]
    bad: Sequence[bool]
    examples: Sequence[str]


def credit(count: int) -> Labelled:
    """Loans that the agent asks about; an unknown income or a sanctioned customer is decided by rule and not among them."""
    data = german_credit()
    asked = [(found, not data.good[row.number]) for row in data.replay if (found := _loan(row)) is not None][:count]
    shown = [(found, not data.good[row.number]) for row in data.fit if (found := _loan(row)) is not None][:EXAMPLES]
    return _labelled(credit_risk.AGENT, asked, shown, ("repaid", "not repaid"))


async def quality(count: int) -> Labelled:
    """Readings that pass the gate, each with its window; what rules decide is not among them."""
    data = milling()
    asked = [(found, number in data.failures) for number, found in await _readings(data.replay, 16 * count)][:count]
    shown = [(found, number in data.failures) for number, found in await _readings(data.fit, 16 * EXAMPLES)][:EXAMPLES]
    return _labelled(product_quality.AGENT, asked, shown, ("sound", "failed"))


def _labelled(
    agent: Any, asked: Sequence[tuple[Any, bool]], shown: Sequence[tuple[Any, bool]], words: tuple[str, str]
) -> Labelled:
    lines = [f"{orjson.dumps(features.model_dump(mode='json')).decode()} -> {words[bad]}" for features, bad in shown]
    questions = [Question(f"{agent.name}-{place}", features) for place, (features, _) in enumerate(asked)]
    return Labelled(agent.name, agent.scorer, questions, [bad for _, bad in asked], lines)


def _loan(row: GermanRow) -> credit_risk.CreditFeatures | None:
    """What the agent's own function shows of a loan, None where a rule decides."""
    customer = credit_risk.Customer.model_validate(loans.customer(row, row.number))
    asked = credit_risk.LoanApplication.model_validate(loans.application(row, row.number, row.number, NOW_MS))
    context: Any = _Loan(asked, customer)
    found = credit_risk.features(context)
    return found if isinstance(found, credit_risk.CreditFeatures) else None


@dataclass(frozen=True, slots=True)
class _Row:
    row: credit_risk.LoanApplication


class _Loan:
    """As much of a Context as that function looks at."""

    def __init__(self, row: credit_risk.LoanApplication, customer: credit_risk.Customer) -> None:
        self.value = _Row(row)
        self._customer = customer

    def joined(self, name: str, kind: type) -> credit_risk.Customer:
        return self._customer


class _Passing:
    """Answers that all is well: what it is asked about is what counts here."""

    name = "passing"

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        answer = product_quality.QualityAnswer(cause="none", risk=0, assessment="pass")
        return [Answer("answered", answer)] * len(questions)

    async def close(self) -> None:
        """See models.contract.Scorer."""


async def _readings(lives: Sequence[ToolLife], count: int) -> list[tuple[int, product_quality.QualityFeatures]]:
    """So many readings through the running agent: the number of the row that is judged, and what would be asked about it."""
    dealt = list(deal(lives, count, readings.machines(count)))
    turns = max(reading.turn for reading in dealt)
    raws = []
    for reading in dealt:
        at_ms = NOW_MS - (turns - reading.turn) * readings.STEP_MS
        value = readings.flat(reading.machine, at_ms, readings.measured(reading.row))
        raws.append(Raw(product_quality.MACHINE_READINGS.topic, value, reading.machine.encode(), timestamp=NOW_MS))
    numbers = {row.product: row.number for life in lives for row in life.rows}
    found = []
    async for outcome in try_records(product_quality.AGENT, raws, _Passing()):
        if outcome.judgements and outcome.judgements[0]["features"] is not None:
            product = outcome.decisions[0]["result"]["product"]
            found.append((numbers[product], product_quality.QualityFeatures.model_validate(outcome.judgements[0]["features"])))
    return found
