"""Loans of the German Credit data as row changes of two tables of a bank's PostgreSQL: applications and customers.

Ours, not the data set's, because it has none: ids, times, who asks for which loan when, an income (such that the instalment is
the share of it that the row states), a few unknown incomes and sanctioned customers, and what happens to an application later.
Sex, age and nationality go into the customers table, as a bank has them; the agent's contract keeps them from every prompt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from agents.credit_risk import CUSTOMERS, LOAN_APPLICATIONS
from agents.demo.datasets import GermanRow
from agents.demo.drafts import Draft, Rendered, broken_places, dice
from agents.demo.envelopes import Column, Journal, Table, key_of

APPLICATION_TABLE = Table(
    "loan_application",
    ("id",),
    {
        "id": Column("bigint"),
        "customer_id": Column("bigint"),
        "amount": Column("numeric", scale=2),
        "duration_months": Column("integer"),
        "purpose": Column("text"),
        "installment_rate": Column("integer", nullable=True),
        "other_debtors": Column("text"),
        "other_installment_plans": Column("text"),
        "property": Column("text"),
        "status": Column("text"),
        "submitted_at": Column("timestamptz", nullable=True),
    },
)
CUSTOMER_TABLE = Table(
    "customer",
    ("id",),
    {
        "id": Column("bigint"),
        "checking_account": Column("text"),
        "savings": Column("text"),
        "employment_since": Column("text"),
        "credit_history": Column("text"),
        "existing_credits": Column("integer", nullable=True),
        "housing": Column("text"),
        "residence_since": Column("integer", nullable=True),
        "job": Column("text"),
        "dependants": Column("integer", nullable=True),
        "telephone": Column("text"),
        "income": Column("numeric", nullable=True, scale=2),
        "sanctioned": Column("boolean"),
        "personal_status_and_sex": Column("text", nullable=True),
        "age": Column("integer", nullable=True),
        "foreign_worker": Column("boolean", nullable=True),
    },
)
HINTS: dict[str, dict[str, Any]] = {
    LOAN_APPLICATIONS.name: {"decimals": {"amount": 2}},
    CUSTOMERS.name: {"decimals": {"income": 2}},
}
"""What the wire does not say: the scale of a base64 decimal without a schema. Goes into HEADRACE_TOPICS."""

FAULTS = ("truncated", "missing-field", "wrong-type", "out-of-range")
_SHARES = {1: (0.35, 0.50), 2: (0.25, 0.35), 3: (0.20, 0.25), 4: (0.10, 0.20)}
"""Class of the instalment -> bounds of the share of the income that it stands for."""
_UNKNOWN_INCOME, _SANCTIONED, _LATE, _NEVER = 0.03, 0.01, 0.01, 0.004
_AMENDED, _WRITTEN_BACK, _WITHDRAWN, _DELETED = 0.04, 0.10, 0.12, 0.14
"""Bounds of one dice: what becomes of an application while the replay runs."""


def income(row: GermanRow) -> Decimal | None:
    """A net monthly income that fits the row: one instalment without interest is the stated share of it; None for a few."""
    if dice("income", row.number) < _UNKNOWN_INCOME:
        return None
    low, high = _SHARES[row.installment_rate]
    part = low + (high - low) * dice("share", row.number)
    return (row.amount / row.duration / Decimal(str(round(part, 4)))).quantize(Decimal("0.01"))


def customer(row: GermanRow, number: int) -> dict[str, Any]:
    """The customers table's row of whoever asks for this loan."""
    return {
        "id": number,
        "checking_account": row.checking_account,
        "savings": row.savings,
        "employment_since": row.employment_since,
        "credit_history": row.credit_history,
        "existing_credits": row.existing_credits,
        "housing": row.housing,
        "residence_since": row.residence_since,
        "job": row.job,
        "dependants": row.dependants,
        "telephone": row.telephone,
        "income": income(row),
        "sanctioned": dice("sanctioned", row.number) < _SANCTIONED,
        "personal_status_and_sex": row.personal_status_and_sex,
        "age": row.age,
        "foreign_worker": row.foreign_worker,
    }


def application(row: GermanRow, number: int, customer_number: int, at_ms: int) -> dict[str, Any]:
    """The applications table's row of this loan, submitted at that time."""
    return {
        "id": number,
        "customer_id": customer_number,
        "amount": row.amount.quantize(Decimal("0.01")),
        "duration_months": row.duration,
        "purpose": row.purpose,
        "installment_rate": row.installment_rate,
        "other_debtors": row.other_debtors,
        "other_installment_plans": row.other_installment_plans,
        "property": row.belongings,
        "status": "submitted",
        "submitted_at": datetime.fromtimestamp(at_ms / 1000, UTC),
    }


def loans(rows: Sequence[GermanRow], count: int, journal: Journal, *, at_ms: int, first_id: int = 1) -> Iterator[list[Draft]]:
    """`count` records of applications in order, each with the customer's record that goes with it.

    A loan that is asked for comes first; some are amended, written back to, withdrawn or deleted some records later. When
    the rows are used up they are asked for again, by new customers. `at_ms` is about when all of it happens.
    """
    broken = broken_places(count, FAULTS)
    fresh = itertools.cycle(rows)
    later: dict[int, list[Draft]] = {}
    waiting: list[Draft] = []
    number = first_id
    for place in range(count):
        waiting += later.pop(place, [])
        if waiting and place not in broken:
            yield [waiting.pop(0)]
            continue
        row = next(fresh)
        values = application(row, number, 700_000 + number, at_ms)
        asked = _draft("application", journal.insert, values, row)
        about = _customer(row, 700_000 + number, journal)
        if place in broken:
            yield [_break(asked, broken[place])]
        else:
            yield [asked, *about]
            for gap, draft in enumerate(_sequel(row, values, journal), start=1):
                later.setdefault(place + 6 * gap + int(20 * dice("gap", number)), []).append(draft)
        number += 1


def _customer(row: GermanRow, number: int, journal: Journal) -> list[Draft]:
    """The customer's record: there before the application for most, a moment later for some, never for a few."""
    luck = dice("customer", row.number)
    if luck < _NEVER:
        return []
    late = luck < _NEVER + _LATE
    values, write = customer(row, number), journal.insert if late else journal.snapshot
    lag = 0.2 + 0.8 * dice("lag", row.number) if late else float("-inf")
    return [
        Draft(
            CUSTOMERS.name, "customer", str(number), row.number,
            lambda at: write(CUSTOMER_TABLE, values, at), values=values, lag=lag,
        )
    ]  # fmt: skip


def _sequel(row: GermanRow, values: dict[str, Any], journal: Journal) -> list[Draft]:
    """What becomes of an application after it was asked for."""
    luck = dice("sequel", row.number)
    if luck < _AMENDED:
        amended = (values["amount"] * Decimal("1.1")).quantize(Decimal("0.01"))
        return [_draft("amendment", journal.update, {**values, "amount": amended}, row)]
    if luck < _WRITTEN_BACK:
        return [_draft("write-back", journal.update, {**values, "status": "decided"}, row)]
    if luck < _WITHDRAWN:
        return [_draft("withdrawal", journal.update, {**values, "status": "withdrawn"}, row)]
    if luck < _DELETED:
        gone = replace(_draft("deletion", journal.delete, values, row), values=None)
        return [gone, replace(gone, what="tombstone", render=lambda _: (key_of(APPLICATION_TABLE, values), None))]
    return []


def _draft(what: Any, write: Callable[[Table, Any, int], tuple[bytes, bytes]], values: dict[str, Any], row: GermanRow) -> Draft:
    return Draft(
        LOAN_APPLICATIONS.name, what, str(values["id"]), row.number,
        lambda at: write(APPLICATION_TABLE, values, at), values=values,
    )  # fmt: skip


def _break(draft: Draft, how: str) -> Draft:
    """The draft, broken on purpose in one place."""

    def render(at_ms: int) -> Rendered:
        key, value = draft.render(at_ms)
        assert value is not None
        if how == "truncated":
            return key, value[: len(value) * 2 // 3]
        event = orjson.loads(value)
        if how == "missing-field":
            del event["after"]["amount"]
        elif how == "wrong-type":
            event["after"]["duration_months"] = "two years"
        else:
            event["after"]["amount"] = "/w=="  # -0.01
        return key, orjson.dumps(event)

    return replace(draft, render=render, fault=how, values=None)
