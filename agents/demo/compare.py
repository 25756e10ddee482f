"""How decisions compare with what really happened: beside the base rate, and beside a scorecard fitted on other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agents.demo.baseline import Card, credit_facts, milling_facts
from agents.demo.datasets import Credit, GermanRow, Milling
from agents.demo.ledger import Kept, Seen
from agents.demo.metrics import Auc, Share, auc, by_group, share


@dataclass(frozen=True, slots=True)
class CreditComparison:
    """First decisions on applications against repayment.

    `repaid` is the base rate; `approved_repaid` the share of approved loans that were repaid, `card_repaid` that of as many
    loans which the scorecard finds safest. `agreement` counts approvals of repaid and declines of unpaid loans among all that
    were approved or declined. `agent` and `card` rank the scored loans by risk. `by_sex` and `by_age` are approval rates.
    """

    repaid: Share
    approved_repaid: Share
    card_repaid: Share
    agreement: Share
    agent: Auc
    card: Auc
    by_sex: dict[str, Share]
    by_age: dict[str, Share]


@dataclass(frozen=True, slots=True)
class QualityComparison:
    """Judged pieces against failures.

    `failed` is the base rate over all readings that were replayed; `judged` how many pieces got a decision, and
    `judged_failed` the base rate among these: a gate that looks for trouble lets trouble pass. `caught` is the
    share of failed readings that were judged inspect or stop, `card_caught` the share that the scorecard catches with as many
    alarms. `alarms_failed` is the share of alarms at which the machine failed. `agent` and `card` rank the scored pieces, and
    no others.
    """

    failed: Share
    judged: int
    judged_failed: Share
    caught: Share
    card_caught: Share
    alarms_failed: Share
    agent: Auc
    card: Auc


def compare_credit(decisions: Sequence[Seen | Kept], credit: Credit, card: Card) -> CreditComparison:
    """Compare the decisions on applications as they were first asked for; amendments and retractions have no label."""
    rows = {row.number: row for row in credit.replay}
    asked = [seen for seen in decisions if seen.about.what == "application" and seen.decision.kind == "decision"]
    first = [(rows[seen.about.row], seen.decision) for seen in asked]
    approved = [row for row, decision in first if decision.outcome == "approve"]
    firm = [(row, decision.outcome) for row, decision in first if decision.outcome in ("approve", "decline")]
    scored = [(row, decision.score) for row, decision in first if decision.score is not None]
    risk = {row.number: card.chance(credit_facts(row)) for row, _ in first}
    safest = sorted((row for row, _ in first), key=lambda row: risk[row.number])[: len(approved)]

    def good(row: GermanRow) -> bool:
        return credit.good[row.number]

    return CreditComparison(
        repaid=share(good(row) for row, _ in first),
        approved_repaid=share(good(row) for row in approved),
        card_repaid=share(good(row) for row in safest),
        agreement=share(good(row) == (outcome == "approve") for row, outcome in firm),
        agent=auc((score, not good(row)) for row, score in scored),
        card=auc((risk[row.number], not good(row)) for row, _ in scored),
        by_sex=by_group((row.sex, decision.outcome == "approve") for row, decision in first),
        by_age=by_group((row.age_band, decision.outcome == "approve") for row, decision in first),
    )


def compare_quality(decisions: Sequence[Seen | Kept], readings: Sequence[int], data: Milling, card: Card) -> QualityComparison:
    """Compare the judged pieces; a decision is about the piece that it names. `readings` are the numbers of all rows replayed."""
    rows = {row.number: row for life in data.replay for row in life.rows}
    numbers = {row.product: row.number for row in rows.values()}
    replayed = list(dict.fromkeys(readings))
    named = {numbers.get(str((s.decision.result or {}).get("product"))): s.decision for s in decisions}
    judged = {number: decision for number, decision in named.items() if number is not None}
    alarms = {number for number, decision in judged.items() if decision.outcome in ("inspect", "stop")}
    failures = [number for number in replayed if number in data.failures]
    chance = {number: card.chance(milling_facts(rows[number])) for number in replayed}
    likeliest = set(sorted(replayed, key=lambda number: -chance[number])[: len(alarms)])
    scored = [(number, decision.score) for number, decision in judged.items() if decision.score is not None]
    return QualityComparison(
        failed=Share(len(failures), len(replayed)),
        judged=len(judged),
        judged_failed=share(number in data.failures for number in judged),
        caught=share(number in alarms for number in failures),
        card_caught=share(number in likeliest for number in failures),
        alarms_failed=share(number in data.failures for number in alarms),
        agent=auc((score, number in data.failures) for number, score in scored),
        card=auc((chance[number], number in data.failures) for number, _ in scored if number in chance),
    )
