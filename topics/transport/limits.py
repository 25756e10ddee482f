"""How large a record each outbound topic takes, as the broker has it: what is configured on our side may be older."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)
_NAME = "max.message.bytes"


async def topic_limits(connection: Mapping[str, Any], topics: Iterable[str], *, timeout: float = 5.0) -> dict[str, int]:
    """Topic -> `max.message.bytes`, without those topics that the broker does not describe to us.

    Never raises for the broker's sake: describing needs a right of its own (DescribeConfigs) that a worker can do without, and
    then the sizes that the caller has configured count. `timeout` is seconds for all of it.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in sorted(set(topics))]
    admin = AIOKafkaAdminClient(**connection)
    limits: dict[str, int] = {}
    try:
        async with asyncio.timeout(timeout):
            await admin.start()
            for answer in await admin.describe_configs(resources):  # without a filter on keys: Tansu hangs up on one
                for code, _, _, topic, entries in answer.resources:
                    told = next((entry[1] for entry in entries if entry[0] == _NAME), None) if not code else None
                    if told and told.isdecimal():
                        limits[topic] = int(told)
    except (KafkaError, OSError, TimeoutError) as exc:
        log.info("asking for the sizes of outbound topics, going on with the configured ones: %r", exc)
    finally:
        await admin.close()
    return limits
