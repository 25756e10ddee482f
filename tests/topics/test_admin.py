"""plan and apply: what is missing is made, what is ours is brought in line, what is others' is left, nothing is deleted."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import BaseModel

from schemas.errors import ConfigError, TopicError
from tests.support import secure
from tests.support.kafka import create_topic, produce, read_all
from topics.admin import Plan, apply, plan
from topics.connection import KafkaConfig
from topics.dev_broker import ApacheKafka, EmbeddedBroker, LocalBroker, free_port
from topics.spec import TopicSpec, change_topic, out_topic


class Row(BaseModel):
    """A row."""

    id: int


@pytest.fixture
def reads(topic: Callable[..., str]) -> TopicSpec[Any]:
    """A topic that an agent reads."""
    return change_topic("loans", Row, key=("id",), physical=topic("loans"), partitions=2)


@pytest.fixture
def writes(topic: Callable[..., str]) -> TopicSpec[Any]:
    """A topic that an agent writes."""
    return out_topic("decisions", physical=topic("decisions"), partitions=3, retention_ms=1_000_000, max_message_bytes=300_000)


async def described(bootstrap: str, name: str) -> tuple[int, dict[str, str]]:
    """Partitions and settings of a topic, asked independently of the code under test."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (found,) = [t for t in await admin.describe_topics() if t["topic"] == name]
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        return len(found["partitions"]), {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


async def test_missing_topics_are_created_as_specified(
    broker: LocalBroker, reads: TopicSpec[Any], writes: TopicSpec[Any]
) -> None:
    """Both topics appear with their partitions and settings, can be written at once, and a second plan is empty."""
    config = KafkaConfig(broker.bootstrap)
    said: list[str] = []
    first = await plan([reads, writes], config)
    await apply(first, config, say=said.append)
    assert [str(step) for step in first.steps] == said
    assert said[1] == (
        f"create {writes.topic}: 3 partitions, retention.ms=1000000, cleanup.policy=delete, max.message.bytes=300000"
    )
    partitions, configs = await described(broker.bootstrap, writes.topic)
    assert partitions == 3
    assert (configs["retention.ms"], configs["max.message.bytes"]) == ("1000000", "300000")
    assert await produce(broker.bootstrap, reads.topic, [(b"k", b"v")], partition=1) == [0]
    assert await plan([reads, writes], config) == Plan()
    await apply(first, config)  # another process that planned at the same time
    assert len(await read_all(broker.bootstrap, reads.topic)) == 1


async def test_planning_changes_nothing(broker: LocalBroker, reads: TopicSpec[Any], writes: TopicSpec[Any]) -> None:
    """After a plan that was not applied the next plan is the same."""
    config = KafkaConfig(broker.bootstrap)
    assert await plan([reads, writes], config) == await plan([reads, writes], config)


async def test_settings_of_our_topics_are_brought_in_line_and_others_kept(broker: LocalBroker, writes: TopicSpec[Any]) -> None:
    """Only what differs is set; a setting that the registry does not know keeps its value."""
    await create_topic(broker.bootstrap, writes.topic, 3, retention_ms="5000", max_message_bytes="300000",
                       cleanup_policy="delete", segment_bytes="2000000")  # fmt: skip
    config = KafkaConfig(broker.bootstrap)
    todo = await plan([writes], config)
    assert [str(step) for step in todo.steps] == [f"configure {writes.topic}: retention.ms 5000 -> 1000000"]
    await apply(todo, config)
    _, configs = await described(broker.bootstrap, writes.topic)
    assert (configs["retention.ms"], configs["segment.bytes"]) == ("1000000", "2000000")
    assert not await plan([writes], config)


async def test_the_order_of_cleanup_policies_is_no_difference(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """compact,delete and delete,compact are the same."""
    spec = out_topic("both", physical=topic(), partitions=1, cleanup="compact,delete")
    await create_topic(broker.bootstrap, spec.topic, cleanup_policy="delete,compact",
                       retention_ms=str(spec.retention_ms), max_message_bytes=str(spec.max_message_bytes))  # fmt: skip
    assert await plan([spec], KafkaConfig(broker.bootstrap)) == Plan()


@pytest.mark.kafka
async def test_a_topic_of_ours_gets_the_partitions_that_its_source_really_has(
    kafka: ApacheKafka, reads: TopicSpec[Any], writes: TopicSpec[Any]
) -> None:
    """Sources with more partitions than the registry says pull their outbound topics up; records in them stay."""
    config = KafkaConfig(kafka.bootstrap)
    await apply(await plan([writes], config), config)
    await produce(kafka.bootstrap, writes.topic, [(b"k", b"v")], partition=0)
    await create_topic(kafka.bootstrap, reads.topic, 5)
    todo = await plan([reads, writes], config, follows={"decisions": "loans"})
    assert [str(step) for step in todo.steps] == [f"add partitions to {writes.topic}: 3 -> 5"]
    await apply(todo, config)
    assert (await described(kafka.bootstrap, writes.topic))[0] == 5
    assert len(await read_all(kafka.bootstrap, writes.topic)) == 1
    assert not await plan([reads, writes], config, follows={"decisions": "loans"})


async def test_a_broker_that_can_not_add_partitions_says_so(embedded: EmbeddedBroker, writes: TopicSpec[Any]) -> None:
    """On the embedded broker the step that it has no request for fails in words, the others are carried out."""
    config = KafkaConfig(embedded.bootstrap)
    await apply(await plan([writes], config), config)
    todo = await plan([replace(writes, partitions=4, retention_ms=7000)], config)
    with pytest.raises(TopicError, match=f"add partitions to {writes.topic}: 3 -> 4: this broker can not do that"):
        await apply(todo, config)
    assert (await described(embedded.bootstrap, writes.topic))[1]["retention.ms"] == "7000"


async def test_a_topic_of_others_is_left_alone_and_its_differences_are_said(
    broker: LocalBroker, topic: Callable[..., str]
) -> None:
    """A source with fewer partitions, and a table that is not compacted, are notes and no steps."""
    spec = change_topic("customers", Row, key=("id",), physical=topic(), partitions=6, cleanup="compact")
    await create_topic(broker.bootstrap, spec.topic, 1, cleanup_policy="delete", retention_ms="60000")
    found = await plan([spec], KafkaConfig(broker.bootstrap))
    assert not found
    assert len(found.notes) == 2
    assert "has 1 partitions, the registry says 6" in found.notes[0]
    assert "rows older than its retention (60000 ms) get lost" in found.notes[1]


async def test_a_cluster_that_is_not_there_is_told() -> None:
    """Planning against nothing is a configuration error with the address."""
    with pytest.raises(ConfigError, match="is unreachable"):
        await plan([], KafkaConfig(f"127.0.0.1:{free_port()}"))


@pytest.fixture
def secured(java_tools: None, openssl: None, data_dir: Any, tmp_path: Any) -> Iterator[secure.SecureKafka]:
    """An Apache Kafka where alice may do nothing."""
    with secure.SecureKafka(data_dir, secure.certificates(tmp_path)) as broker:
        yield broker


@pytest.mark.kafka
async def test_a_user_who_may_not_create_topics_is_told(
    secured: secure.SecureKafka, tmp_path: Any, writes: TopicSpec[Any]
) -> None:
    """The step and the authorization error are in the message; the administrator's run then succeeds."""

    def config(user: tuple[str, str]) -> KafkaConfig:
        return KafkaConfig(secured.bootstrap, "SASL_SSL", username=user[0], password=user[1], cafile=str(tmp_path / "ca.pem"))

    todo = await plan([writes], config(secure.ALICE))
    with pytest.raises(TopicError, match=f"create {writes.topic}.*AuthorizationFailed"):
        await apply(todo, config(secure.ALICE))
    await apply(todo, config(secure.ADMIN))
    assert not await plan([writes], config(secure.ADMIN))
