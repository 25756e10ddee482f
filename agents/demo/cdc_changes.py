"""What happens in the bank while the chain runs: plain SQL, and for each change what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, LiteralString

import psycopg

from agents.demo.cdc_tables import insert_applications, insert_customers
from agents.demo.datasets import GermanRow
from agents.demo.loans import application, customer

Database = psycopg.AsyncConnection[Any]
CUSTOMERS_FROM = 700_000
"""Customer number = this + the number of the application."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Records that a change leaves on the applications' topic, by what must become of them.

    `unwatched`, `tombstones`, `withdrawn`: skips by the rules unwatched-change, tombstone and application-withdrawn.
    """

    decisions: int = 0
    retractions: int = 0
    unwatched: int = 0
    tombstones: int = 0
    withdrawn: int = 0

    def __add__(self, other: Effect) -> Effect:
        return Effect(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def records(self) -> int:
        """How many records that are."""
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Change:
    """`title` for a person, `run` on the database, `effect` once the row it concerns has been decided before."""

    title: str
    run: Callable[[Database], Awaitable[None]]
    effect: Effect


def first(rows: Sequence[GermanRow], count: int, at_ms: int) -> Change:
    """The applications 1 to `count` and their customers: what is in the tables when the connector begins."""
    return Change(f"{count} applications of {count} customers", _apply_for(rows, 1, count, at_ms), Effect(decisions=count))


def changes(rows: Sequence[GermanRow], count: int, at_ms: int) -> list[Change]:
    """What then happens, one after the other. Applications 1 to 7 are among the first `count`."""
    return [
        Change("three new applications are inserted", _apply_for(rows, count + 1, 3, at_ms), Effect(decisions=3)),
        Change(
            "application 1 asks for more",
            _sql("UPDATE loan_application SET amount = round(amount * 1.1, 2) WHERE id = 1"),
            Effect(decisions=1),
        ),
        Change(
            "the submission time of application 2 is corrected; nothing that the agent watches",
            _sql("UPDATE loan_application SET submitted_at = submitted_at - interval '1 day' WHERE id = 2"),
            Effect(unwatched=1),
        ),
        Change(
            "application 3 is deleted",
            _sql("DELETE FROM loan_application WHERE id = 3"),
            Effect(retractions=1, tombstones=1),
        ),
        Change(
            "application 4 gets another primary key, 90004: a delete and a create to Debezium",
            _sql("UPDATE loan_application SET id = 90004 WHERE id = 4"),
            Effect(decisions=1, retractions=1, tombstones=1),
        ),
        Change(
            "application 5 is withdrawn, then amended",
            _sql(
                "UPDATE loan_application SET status = 'withdrawn' WHERE id = 5",
                "UPDATE loan_application SET amount = amount + 100 WHERE id = 5",
            ),
            Effect(unwatched=1, withdrawn=1),
        ),
        Change(
            "a column is added to the table, and filled for application 6 alone",
            _sql(
                "ALTER TABLE loan_application ADD COLUMN channel text",
                "UPDATE loan_application SET channel = 'branch' WHERE id = 6",
            ),
            Effect(unwatched=1),
        ),
        Change(
            "application 7 asks for a longer term, with the new column filled too",
            _sql("UPDATE loan_application SET channel = 'online', duration_months = duration_months + 6 WHERE id = 7"),
            Effect(decisions=1),
        ),
    ]


def _apply_for(rows: Sequence[GermanRow], start: int, count: int, at_ms: int) -> Callable[[Database], Awaitable[None]]:
    """Insert customers, then their applications, from number `start`; real rows, taken in turn."""
    numbered = [(number, rows[(number - 1) % len(rows)]) for number in range(start, start + count)]

    async def run(db: Database) -> None:
        await insert_customers(db, [customer(row, CUSTOMERS_FROM + number) for number, row in numbered])
        await insert_applications(db, [application(row, number, CUSTOMERS_FROM + number, at_ms) for number, row in numbered])

    return run


def _sql(*statements: LiteralString) -> Callable[[Database], Awaitable[None]]:
    """Each statement in a transaction of its own, as an application's would be."""

    async def run(db: Database) -> None:
        for statement in statements:
            await db.execute(statement)

    return run
