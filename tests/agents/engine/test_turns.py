"""Turns: answers are worked through one call after the other, and the loop goes round between them."""

from __future__ import annotations

import asyncio

from agents.engine.turns import Turns


async def test_what_is_ready_runs_between_two_turns() -> None:
    turns, seen = Turns(), list[str]()

    async def work(name: str) -> None:
        async with turns:
            seen.append(name)
            asyncio.get_running_loop().call_soon(seen.append, f"after {name}")

    await asyncio.gather(*(work(name) for name in "abc"))
    assert seen == ["a", "after a", "b", "after b", "c"] or seen == ["a", "after a", "b", "after b", "c", "after c"]


async def test_turns_come_in_the_order_of_asking_and_never_two_at_once() -> None:
    turns, order, inside = Turns(), list[int](), 0

    async def work(number: int) -> None:
        nonlocal inside
        async with turns:
            inside += 1
            assert inside == 1
            order.append(number)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work(number) for number in range(20)))
    assert order == list(range(20))


async def test_a_turn_that_fails_or_is_cancelled_frees_the_next() -> None:
    turns, reached = Turns(), asyncio.Event()

    async def fails() -> None:
        async with turns:
            raise RuntimeError("a defect")

    async def holds() -> None:
        async with turns:
            await asyncio.Event().wait()

    async def last() -> None:
        async with turns:
            reached.set()

    tasks = [asyncio.ensure_future(work) for work in (fails(), holds(), holds(), last())]
    await asyncio.sleep(0.01)
    tasks[2].cancel()  # waits for its turn
    await asyncio.sleep(0.01)
    assert not reached.is_set()
    tasks[1].cancel()  # has it
    await asyncio.wait_for(reached.wait(), 5)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, asyncio.CancelledError, asyncio.CancelledError, type(None)]
