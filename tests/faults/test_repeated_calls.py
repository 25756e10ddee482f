"""What a killed worker costs in model calls: those in flight and those not committed are asked again, nothing else is.

The race: answers above a call that hangs are committed as done ranges of the metadata while the group's offset stays below the
call; a successor that went by the offset alone would ask about all of them again. What green does not prove: anything about
brokers without transactions, which keep no done ranges.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

import pytest

from tests.support.fault_worker import IN_FLIGHT
from tests.support.fleet import Fleet, Member
from topics.dev_broker import ApacheKafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]
BATCH = 4
HANG = "1 14"
"""Two customers of different partitions: their calls never end, and neither do those about their batches' other records."""


async def test_only_calls_in_flight_are_asked_again(kafka: ApacheKafka, fleet: Fleet) -> None:
    """Two calls hang near the start of their partitions while all that was answered is committed; then the kill."""
    await fleet.produce(240)
    victim = fleet.start(hang=HANG)
    await victim.running()
    answered = await all_committed(fleet, victim)
    victim.signal(signal.SIGKILL)
    assert await victim.ended() == -signal.SIGKILL
    in_flight = set(victim.calls("asked")) - set(victim.calls("answered"))
    assert {1, 14} <= in_flight
    assert len(in_flight) <= 2 * BATCH
    assert len(answered) > 60, "and far more had been answered"
    assert await fleet.lag() > len(answered), "which lies above the offset that is committed"
    assert await finished_by_another(fleet, victim) == in_flight
    await sound(fleet)


async def test_a_kill_amid_the_work_repeats_no_call_that_was_committed(kafka: ApacheKafka, fleet: Fleet) -> None:
    """Killed as an answer comes: what is asked again had been asked, and no receipt of the killed worker had closed it."""
    await fleet.produce(240)
    victim = fleet.start(fault="call.after:SIGKILL:25")
    assert await victim.ended() == -signal.SIGKILL, victim.said()[-3000:]
    in_flight = set(victim.calls("asked")) - set(victim.calls("answered"))
    assert len(in_flight) <= IN_FLIGHT * BATCH
    uncommitted = set(victim.calls("answered")) - await fleet.closed()
    assert await finished_by_another(fleet, victim) == in_flight | uncommitted
    await sound(fleet)


async def all_committed(fleet: Fleet, member: Member) -> set[int]:
    """Wait until a worker asks nothing more and each of its answers is in a receipt; returns what was answered."""
    limit = time.monotonic() + 90
    while True:
        before = member.calls("asked") if member.log.with_suffix(".calls").exists() else []
        await asyncio.sleep(1.0)
        closed = await fleet.closed()
        if before and before == member.calls("asked") and closed.issuperset(member.calls("answered")):
            return set(member.calls("answered"))
        assert time.monotonic() < limit, fleet.logs()


async def finished_by_another(fleet: Fleet, victim: Member) -> set[int]:
    """Another worker does the rest; each asks once, together about every record. Returns what both have asked about."""
    successor = fleet.start()
    await fleet.drained()
    await fleet.stop()
    asked = [Counter(member.calls("asked")) for member in (victim, successor)]
    assert set(asked[0].values()) == set(asked[1].values()) == {1}
    # skips, rules and what is no JSON are decided without a call
    due = {n for n in range(1, fleet.produced + 1) if n % 17 and n % 13 and n % 29}
    assert asked[0].keys() | asked[1].keys() == due
    return asked[0].keys() & asked[1].keys()


async def sound(fleet: Fleet) -> None:
    """The kill has lost, repeated and reordered no outcome."""
    account = await fleet.verified()
    assert (account.totals.repeated, account.totals.out_of_order) == (0, 0)
