"""Keys of reference rows: however a key is written, it finds its row and no other."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DataFault
from topics.reference import row_key


@pytest.mark.parametrize("key", [7, (7,), [7], {"id": 7}, {"id": 7, "other": 1}, Decimal("7.00"), 7.0])
def test_all_ways_to_write_a_key_find_the_same_row(key: Any) -> None:
    """What an agent's `on` returns need not have the form that the key has on the wire."""
    assert row_key(("id",), key) == row_key(("id",), {"id": 7})


def test_keys_of_different_types_or_parts_are_different() -> None:
    """No two keys share a form by accident of their text."""
    uuid = UUID(int=5)
    keys: list[Any] = ["7", 7, True, b"7", Decimal("7.5"), "7.5", ("1", "2s1:3"), ("12s1", "3"), (1, 2), (12,), str(uuid)]
    assert len({row_key((), key) for key in keys}) == len(keys)
    assert row_key(("u",), uuid) == row_key(("u",), str(uuid))
    assert row_key(("d",), date(2026, 1, 2)) == row_key(("d",), "2026-01-02")


@given(st.lists(st.text() | st.integers(), min_size=1, max_size=3), st.lists(st.text() | st.integers(), min_size=1, max_size=3))
def test_composite_keys_are_equal_only_when_their_parts_are(one: list[Any], two: list[Any]) -> None:
    """The canonical form can be taken apart in one way only."""
    assert (row_key((), one) == row_key((), two)) == (one == two)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=3))
def test_numbers_are_one_key_however_many_zeros_they_carry(number: Decimal) -> None:
    """A numeric(12,3) column and an int column meet where they are equal, beyond 28 digits as well."""
    assert row_key((), number) == row_key((), Decimal(f"{number:f}000"))
    assert row_key((), number) != row_key((), Decimal(f"{number:f}1"))


@pytest.mark.parametrize("key", [(1, 2), (), {"other": 1}, object(), float("nan"), Decimal("1e9999"), [[1]]])
def test_what_is_no_key_is_a_fault_of_the_record(key: Any) -> None:
    """A wrong key ends as a dead letter, not as an exception of the loop."""
    with pytest.raises(DataFault) as caught:
        row_key(("id",), key)
    assert caught.value.fault.reason == "join-key"


def test_a_null_key_names_no_row() -> None:
    """A nullable foreign key is nothing to look up."""
    assert row_key(("id",), None) is None
    assert row_key(("a", "b"), (1, None)) is None
