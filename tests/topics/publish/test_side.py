"""What is published beside the outcomes: each record ends as published, dropped or failed, and is counted so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.kafka import create_topic, read_all
from topics.dev_broker import LocalBroker
from topics.publish.side import SidePublisher


async def test_each_record_is_counted_once_as_what_became_of_it(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """What waits beyond the limit is dropped, what the broker would not take has failed, the rest is published; by topic."""
    calls, others = topic("calls"), topic("others")
    for name in (calls, others):
        await create_topic(broker.bootstrap, name)
    side = SidePublisher({"bootstrap_servers": broker.bootstrap}, limit=4)
    for number in range(3):
        side.offer(calls, b"%d" % number, b"{}")
    side.offer(calls, None, b"x" * 3_000_000)  # more than a producer sends in one request
    side.offer(others, None, b"one too many")
    await side.start()
    await side.stop(60)
    assert (dict(side.published), dict(side.dropped), dict(side.failed)) == ({calls: 3}, {others: 1}, {calls: 1})
    assert [r.key for r in await read_all(broker.bootstrap, calls)] == [b"0", b"1", b"2"]


async def test_whoever_waits_goes_on_when_all_that_was_offered_has_ended(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """Published, refused by the broker or dropped: the wait ends with the last of them."""
    calls, others = topic("calls"), topic("others")
    for name in (calls, others):
        await create_topic(broker.bootstrap, name)
    side = SidePublisher({"bootstrap_servers": broker.bootstrap}, limit=4)
    async with asyncio.timeout(60):
        await side.settled(calls)  # nothing was offered
        side.offer(calls, b"0", b"{}")
        side.offer(calls, None, b"x" * 3_000_000)
        side.offer(others, None, b"{}")
        side.offer(calls, b"1", b"{}")
        side.offer(calls, b"2", b"one too many")
        waiting = [asyncio.ensure_future(side.settled(calls)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting), "the producer has not even started"
        waiting.pop().cancel()
        await side.start()
        await waiting[0]
        assert (side.published[calls], side.unpublished(calls)) == (2, 2)
        assert [r.key for r in await read_all(broker.bootstrap, calls)] == [b"0", b"1"]
        await side.stop(30)
        await side.settled(others)
