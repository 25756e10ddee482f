"""A signal while a worker starts or joins its group: it is obeyed then too, whatever the broker does.

The race: the start waits for the group, and the group for a broker that is slow, or has gone silent without closing a connection.
What green does not prove: how long a stop takes where a broker goes silent inside a commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.kafka import read_all
from topics import names
from topics.dev_broker import EmbeddedBroker

pytestmark = pytest.mark.faults
LIMIT = 3 + 15
"""Seconds: the fleet's drain, and what a stop may take beside it."""
SLACK = 12.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_the_broker_is_silent_ends_a_starting_worker(
    number: signal.Signals, topic: Callable[..., str], tmp_path: Path
) -> None:
    """With the broker stopped in the middle of a start the first signal ends the process within its guard's time."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        fleet = Fleet(broker, topic("stopping"), tmp_path)
        await fleet.create()
        try:
            member = fleet.start()
            await member.running()
            for _ in range(300):  # until what is written just before the group is joined is there
                if await read_all(broker.bootstrap, names.MANIFESTS):
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)  # the embedded broker lets a join wait for half of the session, which is 3 s
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                member.signal(number)
                status = await member.ended(LIMIT + SLACK)
            finally:
                os.kill(broker.pid, signal.SIGCONT)
        finally:
            fleet.close()
    assert status in (0, 1), member.said()
    assert f"{number.name}: draining" in member.said()
