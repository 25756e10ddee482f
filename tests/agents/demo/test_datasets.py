"""The demo's data: complete, split once and for all, labels apart, dealt out in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from itertools import pairwise

import pytest

from agents.demo.datasets import GermanRow, MillingRow, deal, german_credit, milling


def test_german_credit_is_whole_and_its_two_parts_share_no_row() -> None:
    """All 1,000 loans are read, each is in exactly one part, and 700 of them were repaid, as the source says."""
    credit = german_credit()
    numbers = [row.number for row in (*credit.replay, *credit.fit)]
    assert sorted(numbers) == list(range(1, 1001))
    assert Counter(credit.good.values()) == {True: 700, False: 300}
    assert 400 < len(credit.replay) < 600


def test_no_column_of_german_credit_has_come_off_its_rows() -> None:
    """Each column changes from row to row as often as unsorted data does; an edition with a sorted column is in wide use."""
    credit = german_credit()
    rows = sorted((*credit.replay, *credit.fit), key=lambda row: row.number)
    for name in (field.name for field in fields(GermanRow) if field.name != "number"):
        values = [getattr(row, name) for row in rows]
        assert sum(before != after for before, after in pairwise(values)) > 60, name
    assert [(row.sex, row.age) for row in rows[:4]] == [("male", 67), ("female", 22), ("male", 49), ("male", 45)]


def test_milling_is_whole_and_its_two_parts_share_no_tool_life() -> None:
    """All 10,000 readings are read, each is in exactly one part, and 339 are failures, as the source says."""
    data = milling()
    numbers = [row.number for life in (*data.replay, *data.fit) for row in life.rows]
    assert sorted(numbers) == list(range(1, 10_001))
    assert len(data.failures) == 339
    assert not {life.number for life in data.replay} & {life.number for life in data.fit}


def test_the_split_never_moves() -> None:
    """The first loans and tool lives of each part are pinned: results of two versions compare the same rows."""
    credit, data = german_credit(), milling()
    assert [row.number for row in credit.replay[:8]] == [1, 4, 5, 7, 8, 9, 10, 11]
    assert [life.number for life in data.replay[:8]] == [19, 70, 38, 7, 87, 53, 28, 11]


def test_rows_carry_no_label() -> None:
    """No field of a row, by name or by value, tells what became of it."""
    credit, data = german_credit(), milling()
    names = {f.name for f in (*fields(GermanRow), *fields(MillingRow))}
    assert not {"creditability", "good", "bad", "target", "failure", "label"} & names
    labels = {"good", "bad", *data.failures.values(), "No Failure"}
    shown = {getattr(row, f.name) for row in credit.replay for f in fields(row) if isinstance(getattr(row, f.name), str)}
    shown |= {text for life in data.replay for row in life.rows for text in (row.product, row.variant)}
    assert not labels & shown


def test_wear_never_falls_within_a_tool_life() -> None:
    """A tool life is one tool: from its first reading on, wear only rises."""
    data = milling()
    for life in (*data.replay, *data.fit):
        wear = [row.wear for row in life.rows]
        assert wear == sorted(wear)


def test_readings_are_dealt_in_turn_and_in_the_order_of_the_file() -> None:
    """Each machine gets one reading a turn, and between two changes of tool its readings follow each other in the file."""
    dealt = list(deal(milling().replay, 800, machines=8))
    assert Counter(d.machine for d in dealt) == {f"mill-{n:02d}": 100 for n in range(1, 9)}
    for machine in {d.machine for d in dealt}:
        mine = [d for d in dealt if d.machine == machine]
        assert [d.turn for d in mine] == list(range(100))
        for before, after in pairwise(mine):
            assert after.row.number == before.row.number + 1 or after.row.wear < before.row.wear


def test_no_reading_is_dealt_twice_before_all_were_dealt() -> None:
    """A short replay repeats no row; a long one starts over instead of ending."""
    lives = milling().replay
    short = [d.row.number for d in deal(lives, 2000)]
    assert len(set(short)) == 2000
    assert sum(1 for _ in deal(lives, 12_000)) == 12_000


def test_dealing_nothing_is_refused() -> None:
    """Without a tool life there is nothing to deal, and the message says so."""
    with pytest.raises(ValueError, match="no tool life"):
        deal([], 1)
