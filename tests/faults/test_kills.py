"""A worker is killed at a chosen point of a batch; another one takes over; afterwards every input has exactly one outcome.

The race: outcomes, receipt and offset become visible together or not at all. A kill between the steps that make them visible is
what a wrong order of these steps would show up at. What green does not prove: that no other point is unsound; these are those
between which something outside changes.
"""

from __future__ import annotations

import signal

import pytest

from tests.support.fleet import Fleet
from topics.dev_broker import ApacheKafka

pytestmark = pytest.mark.faults

POINTS = {
    "before the call": "call.before:SIGKILL:6",
    "after the answer": "call.after:SIGKILL:6",
    "inside the transaction, outcomes sent": "publish.sends:SIGKILL:3",
    "inside the transaction, offsets sent": "publish.offsets:SIGKILL:3",
    "after the commit": "publish.commit.after:SIGKILL:3",
}
EMBEDDED = ("before the call", "inside the transaction, outcomes sent", "after the commit")
"""At least once there is no transaction: its points lie after the outcomes, after the receipt and after the commit."""


@pytest.mark.kafka
@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_worker_loses_and_repeats_nothing(point: str, kafka: ApacheKafka, fleet: Fleet) -> None:
    """Exactly once: whatever the point of the kill, each record has one outcome, published once, in order."""
    await killed_and_replaced(fleet, POINTS[point])
    account = await fleet.verified()
    assert account.promises == {"exactly-once"}
    assert (account.totals.repeated, account.totals.out_of_order) == (0, 0)


@pytest.mark.parametrize("point", EMBEDDED)
async def test_without_transactions_a_kill_repeats_at_most_under_the_same_ids(point: str, embedded_fleet: Fleet) -> None:
    """At least once: nothing is lost, what repeats has the id it had, and the order of each key stands."""
    await killed_and_replaced(embedded_fleet, POINTS[point])
    account = await embedded_fleet.verified()
    assert account.promises == {"at-least-once"}
    assert account.totals.out_of_order == 0
    if point == "inside the transaction, outcomes sent":
        assert account.totals.repeated > 0  # published, killed before the commit, published again


async def killed_and_replaced(fleet: Fleet, fault: str) -> None:
    """A worker is killed in the middle of its backlog; the next one finishes, and what came meanwhile."""
    await fleet.produce(360)
    victim = fleet.start(fault=fault)
    assert await victim.ended() == -signal.SIGKILL, victim.said()[-3000:]
    await fleet.produce(60)
    await fleet.start().running()
    await fleet.drained()
    await fleet.stop()
