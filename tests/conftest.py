"""Shared fixtures: brokers that live as long as the session, names for topics, and a watch for processes left behind."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.demo.cdc_chain import missing_cdc_tools
from tests.support import leaks
from topics.dev_broker import ApacheKafka, EmbeddedBroker, LocalBroker, missing_java_tools

ROOT = Path(__file__).resolve().parent.parent
DATA_DIR = ROOT / ".headrace"
"""Holds the jars of Apache Kafka between sessions; git ignores it."""

_session_brokers: list[LocalBroker] = []
"""Their processes outlive a test on purpose. Asked anew each time, since a restart changes them."""


def lacking(reason: str) -> None:
    """Skip for a reason; where CI is set, fail for it: there a missing tool would pass for a passing test."""
    if os.environ.get("CI"):
        pytest.fail(f"this must be here in CI: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _mark_session() -> Iterator[None]:
    """Mark the environment, and fail at the end if any process that inherited the mark is still there."""
    os.environ[leaks.MARK] = uuid.uuid4().hex
    yield
    left = leaks.settle(leaks.descendants(), expected=())
    del os.environ[leaks.MARK]
    assert not left, f"processes outlived the test session: {left}"


@pytest.fixture(autouse=True)
def _no_child_left(_mark_session: None) -> Iterator[None]:
    """Fail a test that leaves a child process behind, and name the process."""
    before = set(leaks.children())
    yield
    expected = before | {pid for broker in _session_brokers for pid in broker.pids}
    left = leaks.settle(leaks.children(), expected)
    assert not left, f"this test left child processes behind: {left}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that local brokers keep their jars and storage in."""
    DATA_DIR.mkdir(exist_ok=True)
    return DATA_DIR


@pytest.fixture(scope="session")
def java_tools(data_dir: Path) -> None:
    """Skips (in CI: fails) the test with a plain reason where Java or Maven is missing."""
    reason = missing_java_tools(data_dir)
    if reason is not None:
        lacking(reason)


@pytest.fixture(scope="session")
def cdc_tools(data_dir: Path) -> None:
    """Skips (in CI: fails) the test with a plain reason where Java, Maven, PostgreSQL or psycopg is missing."""
    reason = missing_cdc_tools(data_dir)
    if reason is not None:
        lacking(reason)


@pytest.fixture(scope="session")
def openssl() -> None:
    """Skips (in CI: fails) the test where no certificates can be made."""
    if shutil.which("openssl") is None:
        lacking("making certificates needs the openssl command")


@pytest.fixture(scope="session")
def embedded(_mark_session: None) -> Iterator[EmbeddedBroker]:
    """The embedded broker, shared by the session: use topics of your own. Do not stop it."""
    with EmbeddedBroker() as broker:
        _session_brokers.append(broker)
        yield broker
        _session_brokers.remove(broker)


@pytest.fixture(scope="session")
def kafka(_mark_session: None, java_tools: None, data_dir: Path) -> Iterator[ApacheKafka]:
    """One Apache Kafka, shared by the session: use topics of your own. A test may restart it; it must be up afterwards."""
    with ApacheKafka(data_dir) as broker:
        _session_brokers.append(broker)
        yield broker
        _session_brokers.remove(broker)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> LocalBroker:
    """The test runs once on the embedded broker and once on Apache Kafka."""
    found: LocalBroker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def topic() -> Callable[..., str]:
    """A factory of names that no other test uses: `topic("loans")` -> "loans-1f0c9a2b"."""

    def name(stem: str = "topic") -> str:
        return f"{stem}-{uuid.uuid4().hex[:8]}"

    return name
