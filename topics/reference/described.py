"""What the broker tells of a reference table's topic before anything of it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.errors import TopicError

DAY_MS = 86_400_000
"""Kafka's own default of `delete.retention.ms`."""


async def describe(topic: str, connection: Mapping[str, Any]) -> tuple[list[TopicPartition], int]:
    """The topic's partitions, and its `delete.retention.ms`: the default where the broker does not tell.

    Raises TopicError for a topic that is not there, KafkaError as aiokafka does.
    """
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        # asked for by its name, a topic that is not there would be made by a broker that makes topics by itself
        described = [t for t in await admin.describe_topics() if t["topic"] == topic]
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]) if described else []
    finally:
        await admin.close()
    numbers = sorted(p["partition"] for t in described for p in t["partitions"])
    if not numbers:
        raise TopicError(f"opening reference table: there is no topic {topic}")
    retention = DAY_MS
    for answer in answers:
        for resource in answer.resources:
            for entry in resource[4]:
                if entry[0] == "delete.retention.ms" and entry[1]:
                    retention = int(entry[1])
    return [TopicPartition(topic, number) for number in numbers], retention
