"""Room behind a breaker: none beyond what a recovering endpoint is trusted with, and whoever is told no is told again."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker import FIRST_PAUSE, HOPELESS_PAUSE, IN_A_ROW, Breaker
from models.gates.breaker_gate import BreakerGate
from models.gates.breaker_pacer import BreakerPacer
from models.gates.gate import Asking, End, Ended, Leave, Refused
from tests.support.scoring import soon
from tests.support.virtual_time import run

AGENTS = "abc"


class Pair:
    """The gates of a line with their pacer. `told` counts how often each agent was told of room."""

    def __init__(self, *, patient: bool = False) -> None:
        self.gate = BreakerGate("there", Breaker(lambda: 0.5), patient=lambda: patient)
        self.pacer = BreakerPacer(self.gate, AdmissionGate(Limits(rpm=60_000)))
        self.told = dict.fromkeys(AGENTS, 0)
        for agent in AGENTS:
            self.pacer.on_room(agent, lambda agent=agent: self._tell(agent))  # type: ignore[misc]

    def _tell(self, agent: str) -> None:
        self.told[agent] += 1

    async def enter(self, agent: str = "a", seconds: float = 60.0) -> Leave:
        return await self.gate.enter(Asking(agent, 10, 10, {0: 1}), soon(seconds))

    async def fail(self) -> None:
        """Five in a row."""
        for _ in range(IN_A_ROW):
            (await self.enter())(Ended("unavailable"))


async def _recovers() -> None:
    pair = Pair()
    assert pair.pacer.room("a", 10)
    await pair.fail()
    assert all(pair.pacer.room(agent, 10) for agent in AGENTS), "open: what is asked is answered at once"
    await asyncio.sleep(0.9 * FIRST_PAUSE)
    assert sum(pair.told.values()) == 0
    await asyncio.sleep(0.2 * FIRST_PAUSE)
    assert pair.told == dict.fromkeys(AGENTS, 1), "the pause is over"
    assert pair.pacer.room("b")
    assert not pair.pacer.room("b", 1), "one is the probe"
    probe = await pair.enter("b")
    assert not pair.pacer.room("a")
    assert not pair.pacer.room("c")
    probe(Ended("served"))
    await asyncio.sleep(0)
    assert pair.told == {"a": 2, "b": 2, "c": 2}, "each that was told no"
    assert not pair.pacer.room("a", 2)
    assert pair.pacer.room("a", 1)
    first, second = await pair.enter("a"), await pair.enter("c")
    assert not pair.pacer.room("b")
    first(Ended("cancelled"))
    await asyncio.sleep(0)
    assert pair.told["b"] == 3, "its place is free, whatever became of it"
    assert pair.pacer.room("b")
    assert not pair.pacer.room("b", 1)
    second(Ended("unavailable"))
    await asyncio.sleep(0)
    assert pair.told["b"] == 4, "it is open again"
    assert pair.pacer.room("b", 10)


def test_room_is_what_the_breaker_lets_through_and_each_change_is_told() -> None:
    """Open: any; then one; none beside the probe; in slow start what is allowed, less those in flight and coming."""
    run(_recovers())


async def _waits() -> None:
    pair = Pair(patient=True)
    await pair.fail()
    await asyncio.sleep(1.1 * FIRST_PAUSE)
    probe = await pair.enter()
    behind = [asyncio.ensure_future(pair.enter()) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert not any(one.done() for one in behind), "soon it is known whether it is back"
    probe(Ended("served"))
    first, second = [await one for one in behind]
    waiting = [asyncio.ensure_future(pair.enter()) for _ in range(4)]
    await asyncio.sleep(0.1)
    assert not any(one.done() for one in waiting)
    waiting[0].cancel()
    first(Ended("served"))
    await asyncio.sleep(0.1)
    assert [one.done() for one in waiting] == [True, True, False, False], "in their order; who went away takes no place"
    with pytest.raises(Refused, match="others are trying it"):
        await pair.enter(seconds=0.5)
    second(Ended("unavailable"))
    await asyncio.sleep(0.1)
    for one in waiting[2:]:
        with pytest.raises(Refused, match="it is asked again in 2 s"):
            await one
    await asyncio.sleep(2.1 * FIRST_PAUSE)
    probe = await pair.enter()
    late = asyncio.ensure_future(pair.enter())
    await asyncio.sleep(0.1)
    probe(Ended("unavailable"))
    with pytest.raises(Refused, match="it is asked again"):
        await late


def test_where_nobody_else_would_answer_a_place_is_waited_for_while_it_comes_back() -> None:
    """In order, until the deadline or until it fails again, behind the probe too."""
    run(_waits())


async def _random(steps: list[tuple[str, str, int, End, float]]) -> None:
    """Any order of room, requests, ends and pauses. `refusals`: how often each was told when it was last told no."""
    pair, flying, refusals = Pair(), list[Leave](), dict[str, int]()
    for what, agent, number, kind, seconds in steps:
        if what == "room":
            there = pair.pacer.room(agent, number)
            if there:
                refusals.pop(agent, None)
                assert number < pair.gate.places()
            elif not number or pair.gate.breaker.state == "half open":  # else it asks again when what is coming has come
                refusals[agent] = pair.told[agent]
        elif what == "enter":
            try:
                flying.append(await pair.enter(agent))
            except Refused:
                pass
        elif what == "end" and flying:
            flying.pop(number % len(flying))(Ended(kind))
        else:
            await asyncio.sleep(seconds)
    while flying:
        flying.pop()(Ended("cancelled"))
    await asyncio.sleep(1.25 * HOPELESS_PAUSE + 1)
    assert all(pair.told[agent] > before for agent, before in refusals.items())
    assert pair.pacer.room("a")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("room", "room", "enter", "enter", "end", "end", "sleep")), st.sampled_from(AGENTS),
            st.integers(0, 3), st.sampled_from(("unavailable", *get_args(End), "served", "served")), st.floats(0, 3),
        ),
        max_size=80,
    )
)  # fmt: skip
def test_whoever_is_told_no_is_told_again(steps: list[tuple[Any, Any, int, Any, float]]) -> None:
    """Whatever the order of requests, ends, eras and pauses: nobody waits for ever."""
    began = [("enter", "a", 0, "served", 0.0), ("end", "a", 0, "unavailable", 0.0)] * IN_A_ROW
    run(_random([*began, ("sleep", "a", 0, "served", 1.5), *steps]))  # type: ignore[list-item]
