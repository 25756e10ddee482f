"""A bad row of a joined table is told of without its protected values: in the log, in the counts and in what a join finds."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, field_validator

from schemas.marks import Protected
from topics.decode import decoder
from topics.record import Raw
from topics.reference.contents import Contents
from topics.reference.store import Meta, Store
from topics.spec import Clean, Range, TopicSpec

SECRET = "47, pregnant"


class Earlier(BaseModel):
    """The rows as an older model took them."""

    id: int
    age: str | int | None = None


class Customer(BaseModel):
    """Rows of today: the age is a number, and not to be told."""

    id: int
    limit: int | None = None
    sex: Annotated[str | None, Protected("sex")] = None
    age: Annotated[int | None, Protected("age")] = None

    @field_validator("limit")
    @classmethod
    def fits(cls, limit: int | None, info: Any) -> int | None:
        """A validator that tells what it should not."""
        if limit == 13:
            raise ValueError(f"id {info.data['id']} is {SECRET}")
        return limit


def spec(row: type[BaseModel]) -> TopicSpec[Any]:
    """The joined topic."""
    clean = Clean(ranges={"age": Range(0, 150)}) if row is Customer else Clean()
    return TopicSpec(name="customers", kind="change", row=row, key=("id",), clean=clean)


def change(row: Any, **source: Any) -> bytes:
    """A change as Debezium writes it."""
    where = {"connector": "postgresql", "name": "bank", "table": "customers", "lsn": 1, "ts_ms": 1} | source
    return json.dumps({"before": None, "after": row, "source": where, "op": "c", "ts_ms": 1}).encode()


BAD: list[bytes] = [
    change({"id": 1, "age": SECRET}),
    change({"id": 1, "age": 4747}),
    change({"id": 1, "sex": {SECRET: SECRET}}),
    change({"id": 1, "sex": 4747}),
    change({"id": 1, "limit": 13}),
    change(SECRET),
    change([SECRET]),
    change({"id": 1, "age": SECRET}, connector="mongodb"),
    change(json.dumps({"id": 1, "age": {"$numberInt": SECRET}}), connector="mongodb", ord=1),
    change(json.dumps({SECRET: {"$date": SECRET}}), connector="mongodb", ord=1),
    json.dumps(SECRET).encode(),
    json.dumps({"op": SECRET, "after": None}).encode(),
    change({"id": 1, "age": SECRET})[:-3],
    change({"id": 1, "age": SECRET})[:-1] + json.dumps({SECRET: 1}).encode(),
]


@pytest.mark.parametrize("value", BAD, ids=[f"{place}" for place in range(len(BAD))])
def test_a_bad_row_is_logged_without_what_is_protected(value: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line names topic, place and reason; the log is read by more people than the table is."""
    store = Store(tmp_path)
    contents = Contents(spec(Customer), decoder(spec(Customer)), store, Meta("x"), cache_rows=2)
    with caplog.at_level(logging.DEBUG):
        contents.take(Raw("customers", value, b'{"id": 1}', offset=5, timestamp=1))
        contents.flush()
    store.close()
    assert contents.meta.faults == 1
    (line,) = caplog.messages
    assert line.startswith("reading reference customers [0] offset 5: ")
    for text in (line, str(contents.counts)):
        assert SECRET not in text
        assert "4747" not in text
        assert text.isprintable(), "no mark is left over"


def test_a_stored_row_that_fits_no_more_is_found_without_what_is_protected(tmp_path: Path) -> None:
    """A join carries the fault on into a dead letter."""
    store = Store(tmp_path)
    earlier = Contents(spec(Earlier), decoder(spec(Earlier)), store, Meta("x"), cache_rows=2)
    earlier.take(Raw("customers", change({"id": 1, "age": SECRET}), b'{"id": 1}', timestamp=1))
    earlier.flush()
    found = Contents(spec(Customer), decoder(spec(Customer)), store, Meta("x"), cache_rows=2).get(1)
    store.close()
    assert found is not None
    assert found.row is None
    assert found.fault is not None
    assert (found.fault.field, found.fault.detail) == ("age", "(not shown) is not a number")
    assert SECRET not in str(found)
