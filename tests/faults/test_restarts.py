"""Workers and brokers are restarted under load, as upgrades do it: nothing is lost, and on Apache Kafka nothing repeats."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.support.fleet import Fleet
from topics.dev_broker import ApacheKafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]


async def test_a_rolling_restart_of_three_workers(kafka: ApacheKafka, fleet: Fleet) -> None:
    """Each of three workers drains and is replaced while records keep coming; each ends with status 0."""
    old = [fleet.start() for _ in range(3)]
    for member in old:
        await member.running()
    steady = asyncio.create_task(fleet.produce(500, pause=0.03))
    await fleet.receipted()
    for member in old:
        successor = fleet.start()
        await successor.running()
        member.signal(signal.SIGTERM)
        assert await member.ended() == 0, member.said()[-3000:]
    await steady
    await fleet.drained()
    await fleet.stop()
    account = await fleet.verified()
    assert (account.totals.repeated, account.totals.out_of_order) == (0, 0)


@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
async def test_a_broker_that_goes_and_comes_back(gently: bool, kafka: ApacheKafka, fleet: Fleet) -> None:
    """Workers outlast a broker that is away for some seconds, and settle each commit whose outcome they can not know."""
    for member in [fleet.start(call_seconds=0.6), fleet.start(call_seconds=0.6)]:
        await member.running()
    await fleet.produce(600)
    await fleet.receipted()
    assert await fleet.lag() > 100  # it goes in the middle of their work
    await asyncio.to_thread(kafka.stop if gently else kafka.kill)
    await asyncio.sleep(2.0)
    await asyncio.to_thread(kafka.start)
    await fleet.produce(60)
    await fleet.drained(150.0)
    await fleet.stop()
    # Hundreds a second before they were braked, so thousands; how many kinds come again goes by how long a busy machine takes.
    assert max(len(m.said().splitlines()) for m in fleet.members) < 500
    account = await fleet.verified()
    assert (account.totals.repeated, account.totals.out_of_order) == (0, 0)
