"""Reference tables in tests: a row model, changes as plain JSON, contents fed by hand, a table that follows a topic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.change import Change, SourcePosition
from schemas.dead_letter import Fault
from topics.decode.result import Control, Decoded, Result
from topics.dev_broker import LocalBroker
from topics.record import Raw, RawRecord
from topics.reference import ReferenceTable, StoredRow
from topics.reference.contents import Contents
from topics.reference.store import Meta, Store
from topics.spec import TopicSpec


class Customer(BaseModel):
    """A row of the joined table."""

    id: int
    name: str | None = ""
    income: Decimal | None = None


class OlderCustomer(Customer):
    """A later row model."""

    age: int | None = None


SPEC: TopicSpec[Any] = TopicSpec(name="customers", kind="change", row=Customer, key=("id",))


def decode(record: RawRecord) -> Result[Any]:
    """A plain JSON form of changes, so that these tests do not lean on any envelope."""
    if record.value is None:
        return Control("tombstone", json.loads(record.key or b"{}"))
    try:
        body = json.loads(record.value, parse_float=Decimal)
    except ValueError:
        return Fault("decode", "not-json")
    if body == "truncate":
        return Control("truncate")
    key = json.loads(record.key or b"{}")
    after = Customer(**body["after"]) if body.get("after") else None
    source = SourcePosition(name=body.get("source", "pg"), ts_ms=body.get("ts"), order=tuple(body.get("order", ())))
    change = Change(body.get("op", "u"), key, after, source=source, unavailable=frozenset(body.get("unavailable", ())))
    return Decoded((change,))


def body(number: int, name: str | None = "a", **more: Any) -> tuple[bytes, bytes]:
    """A record (key, value) of one row."""
    key = json.dumps({"id": number}).encode()
    return key, json.dumps({"op": "u", "after": {"id": number, "name": name}} | more).encode()


def gone(number: int, **more: Any) -> tuple[bytes, bytes]:
    """A record that deletes a row."""
    return body(number, op="d", after=None, **more)


def tombstone(number: int) -> tuple[bytes, None]:
    """The record that follows a delete."""
    return json.dumps({"id": number}).encode(), None


class Log:
    """Feeds records to the contents of a table, one offset after the other, each flushed."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.contents = Contents(SPEC, decode, self.store, Meta("x"), cache_rows=2)
        self.offset = 0

    def __call__(self, record: tuple[bytes, bytes | None], timestamp: int = 1000) -> StoredRow | None:
        key, value = record
        self.contents.take(Raw("customers", value, key, offset=self.offset, timestamp=timestamp))
        self.contents.flush()
        self.offset += 1
        return self.contents.get(json.loads(key)["id"])


def name(found: StoredRow | None) -> str | None:
    """The name in a row that is there."""
    assert found is not None
    assert isinstance(found.row, Customer)
    return found.row.name


@asynccontextmanager
async def following(
    broker: LocalBroker, topic: str, folder: Path, *, ready: bool = True, **more: Any
) -> AsyncIterator[ReferenceTable]:
    """A started table of this topic."""
    spec = replace(SPEC, physical=topic)
    table = ReferenceTable(spec, {"bootstrap_servers": broker.bootstrap}, folder, decode=decode, **more)
    await table.start()
    try:
        if ready:
            async with asyncio.timeout(60):
                await table.ready()
        yield table
    finally:
        await table.stop()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true, at most a minute."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - nothing of the table tells of each change
            await asyncio.sleep(0.01)
