"""Verification beside workers that go on publishing: the ends it fixes, in the order it fixes them, contradict nothing.

The race: receipts, outcomes, input and the group's offset are read one after the other while all of them grow, and the markers of
one transaction reach its partitions one by one. What green does not prove: that the order is right for every interleaving; the
argument for that is at the top of topics/verify/read.py.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fleet import Fleet
from topics.verify.read import verify_agent

pytestmark = pytest.mark.faults


@pytest.mark.kafka
async def test_a_running_worker_is_never_accused(fleet: Fleet) -> None:
    """Exactly once: each of several verifications during the work finds no offender, and no fewer records than before."""
    await verified_meanwhile(fleet)


async def test_a_running_worker_is_never_accused_at_least_once_either(embedded_fleet: Fleet) -> None:
    """Where outcomes come before their receipt, seeing them in between is no offence."""
    await verified_meanwhile(embedded_fleet)


async def verified_meanwhile(fleet: Fleet) -> None:
    """Verify again and again while records keep coming: until three verifications have ended, however long one takes."""
    await fleet.start().running()
    seen: list[int] = []

    async def produce() -> None:
        while len(seen) < 3:
            await fleet.produce(400, pause=0.005)

    steady = asyncio.create_task(produce())
    await fleet.receipted()
    while not steady.done():
        account = await verify_agent({"bootstrap_servers": fleet.broker.bootstrap}, fleet.target)
        assert account.ok, [str(o) for o in account.all_offenders] + account.notes
        seen.append(account.totals.records)
    await steady
    await fleet.drained()
    await fleet.stop()
    await fleet.verified()
    assert seen == sorted(seen)
    assert 0 < seen[0] < fleet.produced
