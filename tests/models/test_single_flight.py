"""Single flight: who asks, who shares, who has to live with a failure, whatever happens in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.cache.single_flight import SingleFlight

KEYS = [b"a", b"b"]


class Askers(RuleBasedStateMachine):
    """Askers with deadlines arrive, get answers, fail, are cancelled or give up, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.flights = SingleFlight[int]()
        self.now = 0
        self.count = 0
        self.deadline: dict[int, int] = {}
        self.leading: dict[bytes, int] = {}
        self.took_over: set[int] = set()
        self.waiting: dict[int, bytes] = {}

    @rule(key=st.sampled_from(KEYS), patience=st.integers(1, 9))
    def arrives(self, key: bytes, patience: int) -> None:
        """The first asks, the others wait."""
        self.count += 1
        self.deadline[self.count] = self.now + patience
        if self.flights.lead(key, self.now + patience):
            assert key not in self.leading
            self.leading[key] = self.count
        else:
            self.flights.wait(key, self.count, self.now + patience)
            self.waiting[self.count] = key

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        """Whoever's time is up leaves."""
        self.now += seconds
        for waiter in [waiter for waiter in self.waiting if self.deadline[waiter] <= self.now]:
            self.flights.leave(self.waiting.pop(waiter), waiter)

    @precondition(lambda self: self.leading)
    @rule(data=st.data())
    def is_answered(self, data: Any) -> None:
        """All who wait for this share it."""
        key = data.draw(st.sampled_from(sorted(self.leading)))
        told = self.flights.answered(key)
        del self.leading[key]
        assert sorted(told) == sorted(waiter for waiter, at in self.waiting.items() if at == key)
        for waiter in told:
            del self.waiting[waiter]

    @precondition(lambda self: self.leading)
    @rule(data=st.data(), inherit=st.booleans())
    def fails(self, data: Any, inherit: bool) -> None:
        """Who can wait longest asks next; a second failure is told to nobody who had more time than the one that failed."""
        key = data.draw(st.sampled_from(sorted(self.leading)))
        failed = self.leading.pop(key)
        there = [waiter for waiter, at in self.waiting.items() if at == key]
        heirs, successor = self.flights.failed(key, self.now, inherit=inherit)
        second = failed in self.took_over
        assert heirs == [waiter for waiter in there if inherit and second and self.deadline[waiter] <= self.deadline[failed]]
        for heir in heirs:
            del self.waiting[heir]
        left = [waiter for waiter in there if waiter not in heirs]
        assert (successor is None) == (not left)
        if successor is not None:
            assert self.deadline[successor] == max(self.deadline[waiter] for waiter in left)
            del self.waiting[successor]
            self.leading[key] = successor
            if inherit or second:
                self.took_over.add(successor)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Every key that is waited for is being asked, and nothing else is on the board."""
        assert set(self.waiting.values()) <= set(self.leading)
        assert len(self.flights) == len(self.leading)


TestAskers = Askers.TestCase


def test_of_many_that_fail_alike_two_ask() -> None:
    """One failure is tried again by one; a second one is everybody's."""
    flights = SingleFlight[int]()
    assert flights.lead(b"a", 10)
    for waiter in range(50):
        flights.wait(b"a", waiter, 10)
    heirs, successor = flights.failed(b"a", 1)
    assert (heirs, successor) == ([], 0)
    heirs, successor = flights.failed(b"a", 2)
    assert (sorted(heirs), successor) == (list(range(1, 50)), None)


def test_a_second_try_that_is_cancelled_leaves_the_try_to_the_next_and_no_third() -> None:
    """Whoever takes over from a cancelled one takes over its turn."""
    flights = SingleFlight[int]()
    flights.lead(b"a", 10)
    for waiter in range(4):
        flights.wait(b"a", waiter, 10)
    assert flights.failed(b"a", 1) == ([], 0)
    assert flights.failed(b"a", 2, inherit=False) == ([], 1)
    assert flights.failed(b"a", 3) == ([2, 3], None)


def test_whose_time_is_up_is_not_told_to_ask() -> None:
    """A request that can not be answered in time is not begun."""
    flights = SingleFlight[int]()
    flights.lead(b"a", 10)
    flights.wait(b"a", 1, 5)
    assert flights.failed(b"a", 5) == ([], None)
    assert flights.lead(b"a", 20)


def test_nobody_waits_where_nobody_asks() -> None:
    """That would be for ever."""
    with pytest.raises(KeyError):
        SingleFlight[int]().wait(b"a", 1, 5)
