"""A fleet of real workers for each test, ended after it whatever has become of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from topics.dev_broker import ApacheKafka, EmbeddedBroker


@pytest.fixture
async def fleet(kafka: ApacheKafka, topic: Callable[..., str], tmp_path: Path) -> AsyncIterator[Fleet]:
    """Workers on Apache Kafka, exactly once."""
    found = Fleet(kafka, topic("faulty"), tmp_path)
    await found.create()
    yield found
    found.close()


@pytest.fixture
async def embedded_fleet(embedded: EmbeddedBroker, topic: Callable[..., str], tmp_path: Path) -> AsyncIterator[Fleet]:
    """Workers on the embedded broker, at least once."""
    found = Fleet(embedded, topic("faulty"), tmp_path)
    await found.create()
    yield found
    found.close()
