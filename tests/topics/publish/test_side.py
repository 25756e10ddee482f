"""What is published beside the outcomes: each record ends as published, dropped or failed, and is counted so."""

from __future__ import annotations

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
