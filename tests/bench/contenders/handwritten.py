"""What one would write by hand with aiokafka: read a batch, decide each record, publish, commit. No order across crashes of
concurrent calls, no receipts, no done ranges, no fencing of a previous owner: the least that does the work.

`delivery`: "plain" (idempotent producer, commit afterwards) or "transactional"; `build`: "send" or "batch" (`create_batch`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tests.bench.contenders.meter import Meter, configuration, leave, tune_collector
from tests.bench.shared import Work

MOST = 1000
BATCH_BYTES = 131_072


class Loop:
    """One run of the loop."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.work = Work(given["source"], given["decisions"])
        self.out: str = given["decisions"]
        self.meter = Meter()
        self.transactional = given["delivery"] == "transactional"
        self.publish = self.batches if given["build"] == "batch" else self.sends

    async def run(self) -> None:
        """Until `count` records are through."""
        given = self.given
        consumer = AIOKafkaConsumer(
            given["source"], bootstrap_servers=given["bootstrap"], group_id=given["group"], auto_offset_reset="earliest",
            enable_auto_commit=False, isolation_level="read_committed", max_poll_records=MOST,
        )  # fmt: skip
        settings: dict[str, Any] = {"bootstrap_servers": given["bootstrap"], "max_batch_size": BATCH_BYTES, "acks": "all"}
        settings |= (
            {"linger_ms": 0, "transactional_id": given["group"], "retry_backoff_ms": 20}
            if self.transactional
            else {"linger_ms": 5, "enable_idempotence": True}
        )
        self.producer = AIOKafkaProducer(**settings)
        await self.producer.start()
        await consumer.start()
        done = commits = 0
        while done < given["count"]:
            found = await consumer.getmany(timeout_ms=1000, max_records=MOST)
            if not found:
                continue
            self.meter.start()
            offsets = {tp: OffsetAndMetadata(records[-1].offset + 1, "") for tp, records in found.items()}
            if self.transactional:
                await self.producer.begin_transaction()
            await asyncio.gather(*await self.publish(found))
            if self.transactional:
                await self.producer.send_offsets_to_transaction(offsets, given["group"])
                await self.producer.commit_transaction()
            else:
                await consumer.commit(offsets)
            done += sum(map(len, found.values()))
            commits += 1
        leave(self.meter.result(done, commits=commits))

    async def sends(self, found: dict[TopicPartition, list[Any]]) -> list[Any]:
        """One `send` a record, as every example does it."""
        sent = []
        for tp, records in found.items():
            for record in records:
                made = self.work(record)
                headers = list(made.headers)
                sent.append(await self.producer.send(self.out, made.value, key=made.key, partition=tp.partition, headers=headers))
        return sent

    async def batches(self, found: dict[TopicPartition, list[Any]]) -> list[Any]:
        """Batches built here, one a partition or several where they are full."""
        sent = []
        for tp, records in found.items():
            batch = self.producer.create_batch()
            for record in records:
                made = self.work(record)
                headers = list(made.headers)
                if batch.append(key=made.key, value=made.value, timestamp=None, headers=headers) is None:
                    batch.close()
                    sent.append(await self.producer.send_batch(batch, self.out, partition=tp.partition))
                    batch = self.producer.create_batch()
                    batch.append(key=made.key, value=made.value, timestamp=None, headers=headers)
            batch.close()
            sent.append(await self.producer.send_batch(batch, self.out, partition=tp.partition))
        return sent


tune_collector()
uvloop.run(Loop(configuration()).run())
