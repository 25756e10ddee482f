"""Where partitions end, also on a broker that says it wrongly.

The embedded broker (Tansu 0.6) answers ListOffsets for the latest offset with the first offset of the last batch plus one: of
five records in that batch it misses four. Its Fetch answers carry the right high watermark and last stable offset,
as every broker's do, so these are asked for here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from aiokafka import TopicPartition

from schemas.errors import BrokerError
from topics.tolerant.consumer import TolerantConsumer

_WAIT_MS = 20
"""How long a broker holds a fetch at the very end before it answers that there is nothing more."""


async def end_offsets(
    connection: Mapping[str, Any],
    tps: Iterable[TopicPartition],
    *,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    timeout: float = 15.0,
) -> dict[TopicPartition, int]:
    """The offset behind the last record of each partition that a reader of this isolation may see.

    `connection` are aiokafka's connection arguments. Raises BrokerError where a partition does not answer in `timeout` s.
    """
    wanted = list(tps)
    if not wanted:
        return {}
    consumer = TolerantConsumer(
        **connection, isolation_level=isolation, enable_auto_commit=False, auto_offset_reset="earliest",
        fetch_max_wait_ms=_WAIT_MS,
    )  # fmt: skip
    await consumer.start()
    try:
        consumer.assign(wanted)
        for tp, offset in (await consumer.end_offsets(wanted)).items():
            consumer.seek(tp, offset)
        known = consumer.last_stable_offset if isolation == "read_committed" else consumer.highwater
        async with asyncio.timeout(timeout):
            while any(known(tp) is None for tp in wanted):
                await consumer.getmany(timeout_ms=_WAIT_MS)
        return {tp: known(tp) for tp in wanted}
    except TimeoutError as error:
        missing = ", ".join(f"{tp.topic}/{tp.partition}" for tp in wanted if known(tp) is None)
        raise BrokerError(f"asking where partitions end: no answer for {missing} in {timeout:.0f} s") from error
    finally:
        await consumer.stop()
