"""The demo's row changes have the shape of real Debezium captures."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.demo.envelopes import Column, Journal, Table, birth_date, encode_decimal

CAPTURES = Path(__file__).parents[2] / "data" / "debezium" / "plain.jsonl"
TABLE = Table(
    "loan_application",
    ("id",),
    {
        "id": Column("bigint"),
        "applicant": Column("text"),
        "amount": Column("numeric", nullable=True, scale=2),
        "dob": Column("date", nullable=True),
        "created_tz": Column("timestamptz"),
    },
)
ROW = {
    "id": 1,
    "applicant": "Ana",
    "amount": Decimal("12345.67"),
    "dob": date(1980, 2, 29),
    "created_tz": datetime(2026, 11, 22, 0, 41, 11, 135572, UTC),
}


def _captured(op: str) -> dict[str, Any]:
    """The first capture of that operation on row 1 of the table, with the value parsed."""
    for line in CAPTURES.read_bytes().splitlines():
        record: dict[str, Any] = orjson.loads(line)
        if (record["topic"], record["key"]) == ("bank.public.loan_application", '{"id":1}') and record["value"]:
            record["value"] = orjson.loads(record["value"])
            if record["value"]["op"] == op:
                return record
    raise LookupError(op)


@pytest.mark.parametrize(("op", "method"), [("r", "snapshot"), ("c", "insert"), ("u", "update"), ("d", "delete")])
def test_an_event_is_shaped_like_a_capture(op: str, method: str) -> None:
    """Envelope and source have the fields of a real event of the operation, with values of the same types."""
    real = _captured(op)
    key, value = getattr(Journal(), method)(TABLE, ROW, 1_795_308_327_613)
    event = orjson.loads(value)
    assert key == b'{"id":1}'
    assert list(event) == list(real["value"])
    assert list(event["source"]) == list(real["value"]["source"])
    for name, found in real["value"]["source"].items():
        assert isinstance(event["source"][name], type(found)), name
    for image in ("before", "after"):
        if real["value"][image] is None:
            assert event[image] is None
        else:
            expected = {name: real["value"][image][name] for name in TABLE.columns}
            assert event[image] == {**expected, "id": 1}


def test_positions_only_grow() -> None:
    """Each change lies later in the log than the one before it, as a connector tells it."""
    journal = Journal()
    events = [orjson.loads(journal.update(TABLE, ROW, 0)[1])["source"] for _ in range(5)]
    assert [e["lsn"] for e in events] == sorted({e["lsn"] for e in events})
    assert [e["txId"] for e in events] == sorted({e["txId"] for e in events})


@given(st.decimals(min_value=Decimal("-1e18"), max_value=Decimal("1e18"), places=2))
def test_a_numeric_keeps_every_digit(value: Decimal) -> None:
    """Base64 of the unscaled two's complement gives back exactly the number that went in, in as few bytes as it takes."""
    raw = base64.b64decode(encode_decimal(value, 2))
    unscaled = int.from_bytes(raw, "big", signed=True)
    assert Decimal(unscaled).scaleb(-2) == value
    assert len(raw) == 1 or not -(1 << (8 * len(raw) - 9)) <= unscaled < 1 << (8 * len(raw) - 9)


def test_nothing_is_rounded() -> None:
    """A value with more decimal places than its column is refused, and so is None where a column takes none."""
    with pytest.raises(ValueError, match="decimal places"):
        encode_decimal(Decimal("0.001"), 2)
    with pytest.raises(ValueError, match="not nullable"):
        Column("text").wire(None)


def test_a_column_that_the_table_lacks_is_refused() -> None:
    """A row with a foreign column never reaches the wire silently cut."""
    with pytest.raises(ValueError, match="no such column: label"):
        Journal().insert(TABLE, {**ROW, "label": "good"}, 0)


@given(st.integers(18, 90), st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_a_birth_date_gives_the_age_back(age: int, on: date) -> None:
    """Somebody born on that date has exactly that age on the day."""
    born = birth_date(age, on)
    years = on.year - born.year - ((on.month, on.day) < (born.month, born.day))
    assert years == age
