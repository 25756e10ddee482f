"""What many tests do with a broker: create a topic, write records, read a topic whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from topics.ends import end_offsets


async def create_topic(
    bootstrap: str, name: str, partitions: int = 1, *, client: Mapping[str, Any] | None = None, **configs: str
) -> str:
    """Create a topic (underscores in the names of `configs` stand for dots) and wait until every partition has a leader.

    `client` are further arguments of the admin client, e.g. KafkaConfig.aiokafka_kwargs().
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **(client or {}))
    await admin.start()
    try:
        settings = {key.replace("_", "."): value for key, value in configs.items()}
        answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        for _, code, *_ in answer.topic_errors:
            if code and code != TopicAlreadyExistsError.errno:
                raise for_code(code)(f"creating {name}")
        for _ in range(600):
            described = (await admin.describe_topics([name]))[0]
            if len(described["partitions"]) >= partitions and all(p["leader"] >= 0 for p in described["partitions"]):
                return name
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    raise TimeoutError(f"topic {name} has no leaders after 30 s")


async def produce(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    *,
    partition: int | None = None,
    headers: Iterable[tuple[str, bytes]] = (),
    timestamp_ms: int | None = None,
) -> list[int]:
    """Write (key, value) pairs, stamped now or as told, and return their offsets once the broker has confirmed them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        told: dict[str, Any] = {"partition": partition, "headers": list(headers), "timestamp_ms": timestamp_ms}
        sent = [await producer.send(topic, value, key, **told) for key, value in records]
        return [(await one).offset for one in sent]
    finally:
        await producer.stop()


async def read_all(
    bootstrap: str, topic: str, *, isolation: Literal["read_committed", "read_uncommitted"] = "read_committed", **client: Any
) -> list[ConsumerRecord]:
    """Every record of a topic from its log start to its end as of now; transactions that are open now are waited for.

    Records come partition by partition, in offset order. Takes no part in any group. Raises TimeoutError after 60 s.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=isolation, auto_offset_reset="earliest", enable_auto_commit=False, **client
    )
    await consumer.start()
    try:
        numbers = await _partitions(consumer, topic)
        tps = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(tps)
        # the markers of a transaction come some ms after its commit has returned: the end is that of a reader who sees all
        ends = await end_offsets({"bootstrap_servers": bootstrap, **client}, tps, isolation="read_uncommitted")
        records: dict[TopicPartition, list[ConsumerRecord]] = {tp: [] for tp in tps}
        await consumer.seek_to_beginning(*tps)
        deadline = asyncio.get_running_loop().time() + 60
        # The position passes transaction markers too, which are no records but count as offsets.
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, batch in (await consumer.getmany(timeout_ms=200)).items():
                records[tp] += batch
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"reading {topic} to its end takes more than 60 s")
        return [record for tp in tps for record in records[tp]]
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    for _ in range(600):
        await consumer._client.force_metadata_update()  # no public call refreshes the list of topics
        await consumer._client.add_topic(topic)
        numbers: set[int] | None = consumer.partitions_for_topic(topic)
        if numbers:
            return numbers
        await asyncio.sleep(0.05)
    raise TimeoutError(f"topic {topic} does not show up in the metadata")
