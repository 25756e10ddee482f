"""Joins: what an agent is told of the rows that belong to its record, at once and after waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import BaseModel

from agents.engine.joins import Joins, MemoryTable
from agents.engine.spec import DecisionAgent, Join, Joined
from schemas.change import Change, SourcePosition
from schemas.dead_letter import Fault
from schemas.errors import AgentError, ConfigError, DataFault
from topics.reference.rows import StoredRow
from topics.spec import TopicSpec


class Customer(BaseModel):
    """A row that is joined."""

    id: int
    name: str = ""


SPEC: TopicSpec[Any] = TopicSpec(name="customers", kind="change", row=Customer, key=("id",))
HOUR = 3_600_000


def by_value(value: Any) -> Any:
    """The record of these tests is its own foreign key."""
    return value


def join(on: Callable[[Any], Any] = by_value, **fields: Any) -> Join:
    """A join with customers."""
    return Join(SPEC, on=on, **fields)


def agent(**joins: Join) -> DecisionAgent[Any, Any, Any]:
    """The few fields of an agent that its joins read."""
    return cast("DecisionAgent[Any, Any, Any]", SimpleNamespace(name="a", joins=joins))


def customer(number: int, ts_ms: int = 1000, name: str = "x") -> Change[Any]:
    """A change of a customer."""
    return Change("c", {"id": number}, Customer(id=number, name=name), source=SourcePosition(ts_ms=ts_ms))


@pytest.fixture
def table() -> MemoryTable:
    """A table that knows customer 1."""
    made = MemoryTable(SPEC)
    made.put(customer(1), partition=3, offset=9)
    return made


def test_a_row_is_found_with_its_position_and_its_age(table: MemoryTable) -> None:
    """The age is what the record's event time is later than the row's source time."""
    joins = Joins(agent(c=join()), {"c": table})
    found = Joined("found", Customer(id=1, name="x"), "customers", 3, 9, 500)
    assert joins.now(1, 1500) == ({"c": found}, True)
    assert joins.now({"id": 1}, 1500) == joins.now((1,), 1500)


def test_a_row_newer_than_the_record_has_no_age(table: MemoryTable) -> None:
    """An age is never below zero: a row may well have changed after the event."""
    rows, _ = Joins(agent(c=join(max_age="1ms")), {"c": table}).now(1, 10)
    assert (rows["c"].age_ms, rows["c"].status) == (0, "found")


@pytest.mark.parametrize(("event_ms", "status"), [(1000 + HOUR, "found"), (1001 + HOUR, "stale")])
def test_a_row_older_than_its_limit_is_stale_but_there(table: MemoryTable, event_ms: int, status: str) -> None:
    """What to do with an old row is the agent's decision."""
    rows, complete = Joins(agent(c=join(max_age="1h", wait="1s")), {"c": table}).now(1, event_ms)
    assert (rows["c"].status, complete) == (status, True)
    assert rows["c"].row == Customer(id=1, name="x")


def test_a_missing_row_is_waited_for_only_where_the_join_says_so(table: MemoryTable) -> None:
    """The lane goes on at once unless a `wait` is declared."""
    assert Joins(agent(c=join()), {"c": table}).now(2, 0) == ({"c": Joined("missing", topic="customers")}, True)
    assert Joins(agent(c=join(wait="1s")), {"c": table}).now(2, 0) == ({"c": Joined("missing", topic="customers")}, False)
    assert Joins(agent(c=join(wait="1s")), {"c": table}).now(1, 0)[1] is True


def test_a_deleted_row_is_missing_and_says_where_it_was_deleted(table: MemoryTable) -> None:
    """A decision without the row names the record that took it away."""
    table.put(Change("d", {"id": 1}, None, source=SourcePosition(ts_ms=2000)), partition=3, offset=12)
    rows, complete = Joins(agent(c=join(wait="1s")), {"c": table}).now(1, 2100)
    assert (rows["c"], complete) == (Joined("missing", None, "customers", 3, 12, 100), False)


@pytest.mark.parametrize("key", [None, (None,), {"id": None}])
async def test_a_null_foreign_key_joins_nothing_and_waits_for_nothing(table: MemoryTable, key: Any) -> None:
    """No row will ever come for it."""
    joins = Joins(agent(c=join(wait="30s")), {"c": table})
    nothing = {"c": Joined("missing", topic="customers")}
    assert joins.now(key, 0) == (nothing, True)
    async with asyncio.timeout(1):
        assert await joins.wait(key, 0) == nothing


async def test_a_row_that_does_not_fit_its_model_is_missing_without_a_wait() -> None:
    """Waiting would not mend it."""

    class Broken:
        """A table whose row can not be read."""

        def get(self, key: Any) -> StoredRow | None:
            return StoredRow(None, "customers", 1, 2, 3, fault=Fault("decode", "invalid"))

        async def wait_for(self, key: Any, timeout: float) -> StoredRow | None:
            raise AssertionError("waited")

    joins = Joins(agent(c=join(wait="30s")), {"c": Broken()})
    expected = {"c": Joined("missing", None, "customers", 1, 2, 7)}
    assert joins.now(1, 10) == (expected, True)
    assert await joins.wait(1, 10) == expected


async def test_all_rows_are_waited_for_at_the_same_time(table: MemoryTable) -> None:
    """Two joins that both miss cost the longer wait, not the sum; the row that comes is used at once."""
    other = MemoryTable(SPEC)
    joins = Joins(agent(c=join(wait="30s"), d=join(wait="200ms"), e=join()), {"c": table, "d": other, "e": other})
    began = time.monotonic()
    waiting = asyncio.create_task(joins.wait(2, 1500))
    await asyncio.sleep(0.02)
    table.put(customer(2, name="came"), offset=10)
    rows = await waiting
    assert 0.15 < time.monotonic() - began < 5
    assert {name: row.status for name, row in rows.items()} == {"c": "found", "d": "missing", "e": "missing"}
    assert rows["c"].row == Customer(id=2, name="came")


@pytest.mark.parametrize("on", [lambda v: v.nothing, lambda v: object(), lambda v: (1, 2)])
async def test_a_key_that_can_not_be_made_is_a_fault_of_the_record(table: MemoryTable, on: Callable[[Any], Any]) -> None:
    """The record becomes a dead letter at stage join; the engine goes on."""
    joins = Joins(agent(c=join(on)), {"c": table})
    with pytest.raises(DataFault) as now:
        joins.now(1, 0)
    with pytest.raises(DataFault) as later:
        await joins.wait(1, 0)
    assert now.value.fault.stage == later.value.fault.stage == "join"


async def test_an_agent_without_joins_has_nothing_to_wait_for() -> None:
    """The hot path of most agents."""
    joins = Joins(agent(), {})
    assert joins.now(1, 0) == ({}, True)
    assert await joins.wait(1, 0) == {}


def test_a_join_without_its_table_or_with_a_wrong_duration_fails_at_start(table: MemoryTable) -> None:
    """Not at the first record."""
    with pytest.raises(AgentError, match="customers"):
        Joins(agent(c=join()), {})
    with pytest.raises(ConfigError):
        Joins(agent(c=join(wait="a while")), {"c": table})
