"""Which codec a topic's records are compressed with is its producers' choice; every one of Kafka's is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.support.transport import Echo, make_site, running, until
from topics.dev_broker import LocalBroker

pytestmark = pytest.mark.kafka


async def test_every_codec_is_read(kafka: LocalBroker, tmp_path: Path) -> None:
    """gzip, snappy, lz4, zstd and plain batches in one partition: each record is offered once, in order, byte for byte."""
    site = await make_site(kafka.bootstrap, partitions=1)
    written: list[bytes] = []
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec)
        await producer.start()
        try:
            for i in range(20):
                written.append(f"{codec}:{i}:".encode() + b"x" * 200)
                await producer.send_and_wait(site.source, written[-1], key=b"k", partition=0)
        finally:
            await producer.stop()
    async with running(site, Echo(site.out), "exactly-once", tmp_path) as app:
        await until(lambda: app.runtime.stats.outcomes >= len(written))
    assert [record.value for record in await site.read(site.out)] == written
