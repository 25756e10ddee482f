"""The bank's database: applications and customers, and what its subscriber to decisions keeps, in plain SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
import psycopg.sql

from agents.demo.loans import APPLICATION_TABLE, CUSTOMER_TABLE

CAPTURED = ("public.customer", "public.loan_application")

TABLES: LiteralString = """
CREATE TABLE customer (
    id                      bigint PRIMARY KEY,
    checking_account        text NOT NULL,
    savings                 text NOT NULL,
    employment_since        text NOT NULL,
    credit_history          text NOT NULL,
    existing_credits        integer,
    housing                 text NOT NULL,
    residence_since         integer,
    job                     text NOT NULL,
    dependants              integer,
    telephone               text NOT NULL,
    income                  numeric(12, 2),
    sanctioned              boolean NOT NULL DEFAULT false,
    personal_status_and_sex text,
    age                     integer,
    foreign_worker          boolean
);
CREATE TABLE loan_application (
    id                      bigint PRIMARY KEY,
    customer_id             bigint NOT NULL REFERENCES customer (id),
    amount                  numeric(12, 2) NOT NULL,
    duration_months         integer NOT NULL,
    purpose                 text NOT NULL,
    installment_rate        integer,
    other_debtors           text NOT NULL,
    other_installment_plans text NOT NULL,
    property                text NOT NULL,
    status                  text NOT NULL DEFAULT 'submitted',
    submitted_at            timestamptz DEFAULT now(),
    -- Written back by the subscriber to decisions. The agent watches none of them.
    decision_id             text,
    decision_score          numeric(5, 2),
    decision_reasons        text,
    decided_at              timestamptz
);
-- By default an update's `before` holds nothing but the old primary key, and a delete's the key and made-up values for the
-- rest. With the whole old row in it, each change says by itself which columns changed: that a write-back of a status touched
-- nothing that the agent watches is then a fact of the record, not of what a worker happens to remember.
ALTER TABLE loan_application REPLICA IDENTITY FULL;

-- The subscriber's own tables; not captured. Progress is in the same transaction as what was done with a decision.
CREATE TABLE decision (
    id             text PRIMARY KEY,
    application_id bigint NOT NULL,
    kind           text NOT NULL,
    outcome        text,
    tier           text NOT NULL,
    written_back   boolean NOT NULL,
    body           json NOT NULL
);
CREATE TABLE decision_progress (
    topic       text NOT NULL,
    part        integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, part)
);
"""

_CUSTOMER = tuple(CUSTOMER_TABLE.columns)
_APPLICATION = tuple(APPLICATION_TABLE.columns)


async def create(db: psycopg.AsyncConnection[Any]) -> None:
    """Create all tables in an empty database, in one transaction."""
    async with db.transaction():
        await db.execute(TABLES)


async def insert_customers(db: psycopg.AsyncConnection[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of the customers table, by column name."""
    await _insert(db, "customer", _CUSTOMER, rows)


async def insert_applications(db: psycopg.AsyncConnection[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of the applications table, by column name."""
    await _insert(db, "loan_application", _APPLICATION, rows)


async def _insert(
    db: psycopg.AsyncConnection[Any], table: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
    places = psycopg.sql.SQL(", ").join(map(psycopg.sql.Placeholder, columns))
    statement = psycopg.sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(psycopg.sql.Identifier(table), names, places)
    async with db.transaction(), db.cursor() as cursor:
        await cursor.executemany(statement, rows)
