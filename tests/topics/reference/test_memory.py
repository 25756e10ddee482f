"""The table in memory that an agent is tried with."""

from __future__ import annotations

import asyncio

import pytest

from schemas.change import Change, SourcePosition
from tests.support.reference import SPEC, Customer, name
from topics.reference import MemoryTable, StoredRow


def test_the_table_in_memory_follows_the_same_rules() -> None:
    """Trying an agent without Kafka joins as a worker does."""
    table = MemoryTable(SPEC)
    new = SourcePosition(name="pg", ts_ms=100, order=(9,))
    old = SourcePosition(name="pg", ts_ms=90, order=(8,))
    assert table.put(Change("c", {"id": 1}, Customer(id=1, name="long"), source=old), offset=1)
    hidden = Change("u", {"id": 1}, Customer(id=1, name=None), source=new, unavailable=frozenset({"name"}))
    assert table.put(hidden, offset=2)
    assert not table.put(Change("u", {"id": 1}, Customer(id=1, name="old"), source=old), offset=3)
    assert table.get((1,)) == StoredRow(Customer(id=1, name="long"), "customers", 0, 2, 100)
    assert table.put(Change("d", {"id": 1}, None), offset=4, timestamp=7)
    assert table.get(1) == StoredRow(None, "customers", 0, 4, 7, deleted=True)
    assert not table.put(Change("c", {"id": None}, Customer(id=1)))


async def test_waiting_ends_when_the_row_comes_and_leaves_nothing_behind() -> None:
    """A waiter gets the row at once; one that waits in vain gets what there is; both are forgotten."""
    table = MemoryTable(SPEC)
    waiting = asyncio.create_task(table.wait_for(1, 30))
    cancelled = asyncio.create_task(table.wait_for(1, 30))
    await asyncio.sleep(0)
    cancelled.cancel()
    table.put(Change("c", {"id": 1}, Customer(id=1)))
    assert name(await waiting) == ""
    assert await table.wait_for(2, 0.01) is None
    table.put(Change("d", {"id": 1}, None))
    deleted = await table.wait_for(1, 0.01)
    assert deleted is not None
    assert deleted.deleted
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len(table._waiters) == 0
