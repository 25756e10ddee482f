"""The end of a demo as a person reads it, and as a program does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.demo.compare import CreditComparison, QualityComparison
from agents.demo.datasets import CREDIT_CITATION, MILLING_CITATION
from agents.demo.ledger import Account, Ledger, Seen
from agents.demo.metrics import Auc, Share, quantile

_FEWEST = 5
"""Fewer of a class than this rank by luck; no figure is better than one that nobody may rely on."""
MODEL_NOTES = {
    "sandbox": "The sandbox scores with its own open rules. These figures prove the plumbing, not a model.",
    "local": "A model of 135 million parameters answered. That proves that a real model fits in, not that this one can judge.",
    "scorecard": "No model was asked: the agents' own scorecards answered.",
    "configured": "Features were named in the prompt, labels were not. Public data may have been part of the model's training.",
}


@dataclass(frozen=True, slots=True)
class Verified:
    """What `headrace verify` found; `complaints` are its offenders, a line each."""

    unaccounted: int
    repeated: int
    out_of_order: int
    complaints: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the end of a demo tells. `model` names who answered.

    `seconds` run from the first record sent to the last outcome seen, `first_decision` from the start of the command.
    """

    ledger: Ledger
    verified: Verified | None
    credit: CreditComparison | None
    quality: QualityComparison | None
    model: str
    promise: str
    seconds: float
    first_decision: float | None

    def unaccounted(self) -> int:
        """Records without an outcome, by the verifier and by the demo's own account: the worse of the two."""
        missing = sum(max(0, self.ledger.owed(name) - account.outcomes) for name, account in self.ledger.accounts.items())
        return max(missing, self.verified.unaccounted if self.verified is not None else 0)

    def ok(self) -> bool:
        """Whether everything was accounted for, in order, and exactly the broken records became dead letters."""
        missed, sound = self.ledger.misburied()
        clean = self.verified is not None and not self.verified.complaints
        return clean and not missed and not sound and self.unaccounted() == 0

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints, with exactly these keys. Latencies are null where nothing was decided."""
        times = [seen.latency_ms for account in self.ledger.accounts.values() for seen in account.decisions]
        tally = self.ledger.tally()
        return {
            "records": sum(self.ledger.owed(name) for name in self.ledger.accounts),
            "decisions": tally["decisions"],
            "dead_letters": tally["dead_letters"],
            "skips": tally["skips"],
            "unaccounted": self.unaccounted(),
            "repeated": self.verified.repeated if self.verified is not None else 0,
            "out_of_order": self.verified.out_of_order if self.verified is not None else 0,
            "model_calls": tally["model_calls"],
            "tokens_input": tally["tokens_input"],
            "tokens_output": tally["tokens_output"],
            "latency_ms": {"p50": _rounded(quantile(times, 0.5)), "p99": _rounded(quantile(times, 0.99))},
            "seconds": round(self.seconds, 2),
        }


def readable(seen: Seen) -> str:
    """One decision in words: who, what, why. Values from the topics are escaped: they are data, not markup."""
    d = seen.decision
    score = f" at {d.score:.0f} of {d.scale.max:.0f}" if d.score is not None and d.scale is not None else ""
    head = f"[bold]{escape(d.subject.type)} {escape(d.subject.id)}[/]: [bold]{escape(d.outcome or d.kind)}[/]{score}"
    tail = f" [dim]({escape(d.tier)}, {seen.latency_ms:.0f} ms)[/]"
    reasons = "".join(f"\n    - {escape(reason.text)} [dim]{escape(reason.code)}, {reason.origin}[/]" for reason in d.reasons)
    changed = f"\n    [dim]{escape(d.proposed_outcome or '')} was proposed; changed by {escape(', '.join(d.overrides))}[/]"
    told = ", ".join(f"{name} {value}" for name, value in (d.result or {}).items() if value is not None)
    result = f"\n    {escape(told)}" if told else ""
    return head + tail + result + reasons + (changed if d.overrides and d.proposed_outcome not in (None, d.outcome) else "")


def show(report: Report, console: Console) -> None:
    """Print the whole summary."""
    console.rule("[bold]What became of every record", align="left")
    console.print(_outcomes(report.ledger))
    _show_account(report, console)
    console.rule("[bold]Beside what really happened", align="left")
    if report.credit is not None:
        _show_credit(report.credit, console)
    if report.quality is not None:
        _show_quality(report.quality, console)
    console.print(f"[yellow]{MODEL_NOTES[report.model]}[/]")
    console.print(
        f"[dim]Data: {CREDIT_CITATION}; {MILLING_CITATION}. Labels and protected attributes are in no prompt. Ids, times, "
        "incomes, and which machine a reading belongs to, are ours. The scorecards are fitted on rows that were not replayed.[/]"
    )


def _outcomes(ledger: Ledger) -> Table:
    table = _table("", *ledger.accounts)
    lines: dict[str, list[str]] = {}
    for name, account in ledger.accounts.items():
        times = [seen.latency_ms for seen in account.decisions]
        made = [seen for seen in account.decisions if seen.decision.kind == "decision"]
        column = {
            "records": str(ledger.owed(name)),
            "decisions": _listed(Counter(seen.decision.outcome or seen.decision.kind for seen in account.decisions)),
            "answered by": _listed(Counter(seen.decision.tier for seen in made)),
            "skipped by rule": _listed(account.skips),
            "dead letters": _listed(Counter(letter.reason for letter in account.dead_letters)),
            "calls, tokens in, out": _calls(account),
            "latency p50, p99": f"{_ms(quantile(times, 0.5))}, {_ms(quantile(times, 0.99))}" if times else "",
        }
        for row, cell in column.items():
            lines.setdefault(row, []).append(cell)
    for row, cells in lines.items():
        table.add_row(row, *cells)
    return table


def _show_account(report: Report, console: Console) -> None:
    ledger = report.ledger
    missed, sound = ledger.misburied()
    broken = sum(1 for planned in ledger.sent.values() if planned.fault is not None)
    if not missed and not sound:
        console.print(f"{broken} records were broken on purpose: exactly these became dead letters.")
    else:
        console.print(f"[red]Of {broken} records that were broken on purpose {len(missed)} are no dead letters.[/]")
        for planned in missed[:5]:
            console.print(f"  [red]not buried: {planned.fault} record of {escape(planned.subject)} on {planned.topic}[/]")
        for letter in sound[:5]:
            where = f"{escape(letter.reason)} at {escape(letter.field or 'no field')}"
            console.print(f"  [red]buried though sound: {escape(letter.about.subject)}, {where}[/]")
    v = report.verified
    if v is not None:
        colour = "red" if v.complaints or report.unaccounted() else "green"
        found = f"{v.unaccounted} unaccounted, {v.repeated} repeated, {v.out_of_order} out of order"
        console.print(f"[{colour}]headrace verify: {found}[/] ({report.promise}).")
        for line in v.complaints[:10]:
            console.print(f"  [red]{escape(line)}[/]")
    if report.first_decision is not None:
        console.print(
            f"[dim]First decision {report.first_decision:.1f} s after the start, all outcomes {report.seconds:.1f} s after "
            "the first record. Latency runs from a record written to its decision visible.[/]"
        )


def _show_credit(c: CreditComparison, console: Console) -> None:
    console.print("credit-risk: the first decision on each application, and whether the loan was repaid")
    table = _table("", "agent", "fitted scorecard", "base rate")
    table.add_row("repaid among those approved", _share(c.approved_repaid), _share(c.card_repaid), _share(c.repaid))
    table.add_row("ranks bad above good (AUC)", _auc(c.agent), _auc(c.card), "0.50")
    table.add_row("approve or decline was right", _share(c.agreement), "", "")
    console.print(table)
    scored = c.agent.positives + c.agent.negatives
    console.print(f"[dim]On all {c.repaid.count} applications decided; both AUCs on the {scored} with a score.[/]")
    groups = _table("measured, in no prompt", "approved", "95 % interval")
    for group, found in {**c.by_sex, **c.by_age}.items():
        low, high = found.interval or (0.0, 0.0)
        groups.add_row(group, _share(found), f"{low:.0%} to {high:.0%}")
    console.print(groups)


def _show_quality(q: QualityComparison, console: Console) -> None:
    console.print(f"product-quality: {q.judged} pieces that passed the gate and were judged, and whether the machine failed")
    table = _table("", "agent", "fitted scorecard", "base rate")
    table.add_row("failures caught (inspect, stop)", _share(q.caught), _share(q.card_caught), "")
    table.add_row("failures among those caught", _share(q.alarms_failed), "", _share(q.failed))
    table.add_row("failures among those judged", _share(q.judged_failed), "", _share(q.failed))
    table.add_row("ranks failed above sound (AUC)", _auc(q.agent), _auc(q.card), "0.50")
    console.print(table)
    scored = q.agent.positives + q.agent.negatives
    console.print(
        f"[dim]On all {q.failed.count} different readings replayed: failures caught, by the agent and by as many alarms of the "
        f"scorecard, and the base rate. On the {scored} judged pieces with a score, no others: both AUCs. The gate passes what "
        "looks like trouble, so failures are more frequent and harder to rank there.[/]"
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _share(found: Share) -> str:
    return f"{found.value:.0%} ({found.hits} of {found.count})" if found.value is not None else "none"


def _auc(found: Auc) -> str:
    if found.value is None or min(found.positives, found.negatives) < _FEWEST:
        return f"too few ({found.positives} against {found.negatives})"
    return f"{found.value:.2f} ± {found.error or 0:.2f} ({found.positives} against {found.negatives})"


def _calls(account: Account) -> str:
    return f"{account.calls}, {account.tokens_input:,}, {account.tokens_output:,}"


def _listed(counts: Mapping[str, int]) -> str:
    return "\n".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _ms(value: float | None) -> str:
    return f"{value:.0f} ms" if value is not None else ""


def _rounded(value: float | None) -> float | None:
    return round(value, 1) if value is not None else None
