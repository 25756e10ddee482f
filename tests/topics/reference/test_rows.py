"""Which change of a row stands, and entries as the store keeps them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.change import SourcePosition
from topics.record import Raw
from topics.reference.entry import Entry, pack, unpack
from topics.reference.rows import Precedence, precedence

AT = SourcePosition(name="pg", ts_ms=100, order=(5, 1))


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (SourcePosition(name="pg", ts_ms=101, order=(6,)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=100, order=(5, 1)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=99, order=(6,)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=99, order=(5, 0)), Precedence.REPLAYED),
        (SourcePosition(name="pg", ts_ms=101, order=(1,)), Precedence.WENT_BACK),
        (SourcePosition(name="pg", ts_ms=100, order=(1,)), Precedence.WENT_BACK),
        (SourcePosition(name="pg", ts_ms=None, order=(1,)), Precedence.WENT_BACK),
        (SourcePosition(name="other", ts_ms=1, order=(1,)), Precedence.NEWER),
        (SourcePosition(name="pg", ts_ms=1), Precedence.NEWER),
    ],
)
def test_only_what_is_older_by_position_and_by_time_is_a_replay(later: SourcePosition, expected: Precedence) -> None:
    """A failover takes positions back but not time; a replay takes both back."""
    assert precedence(AT, later) is expected


raws = st.builds(
    Raw,
    topic=st.just("t"),
    value=st.none() | st.binary(max_size=20),
    key=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**50),
)
entries = st.builds(
    Entry,
    generation=st.integers(0, 2**32 - 1),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**50),
    source=st.builds(
        SourcePosition,
        connector=st.text(max_size=5),
        name=st.text(max_size=5),
        ts_ms=st.none() | st.integers(-(2**50), 2**50),
        order=st.lists(st.integers(0, 2**100), max_size=3).map(tuple),
    ),
    deleted=st.booleans(),
    ignored_delete=st.booleans(),
    records=st.lists(raws, max_size=2).map(tuple),
)


@given(entries)
def test_an_entry_comes_back_as_it_was_stored(entry: Entry) -> None:
    """Bytes, null and empty, headers, positions of any size: nothing is changed by the store."""
    assert unpack(pack(entry), "t") == entry
    assert unpack(pack(entry), "t", records=False) == replace(entry, records=())
