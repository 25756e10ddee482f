"""A stock Faust agent as its documentation writes one: `async for`, `topic.send`, raw bytes in and out, on uvloop.

It has no transactions and acknowledges as facts about stock Faust say: it is here for what it costs, not for what it promises.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import faust
import uvloop

from tests.bench.contenders.meter import Meter, configuration, leave, tune_collector
from tests.bench.shared import Work
from topics.record import Raw


def main() -> None:
    """Until `count` records are through."""
    uvloop.install()
    given = configuration()
    work, meter = Work(given["source"], given["decisions"]), Meter()
    app: Any = faust.App(
        given["group"], broker=f"kafka://{given['bootstrap']}", store="memory://", datadir=given["data_dir"], web_enabled=False,
        topic_disable_leader=True, topic_allow_declare=False, table_standby_replicas=0, consumer_auto_offset_reset="earliest",
        producer_linger=0.005, producer_max_batch_size=131_072,
    )  # fmt: skip
    source = app.topic(given["source"], key_serializer="raw", value_serializer="raw")
    out = app.topic(given["decisions"], key_serializer="raw", value_serializer="raw")
    count, done = given["count"], 0

    @app.agent(source)
    async def bench(stream: Any) -> None:
        nonlocal done
        async for event in stream.events():
            meter.start()
            at = event.message
            partition = at.partition
            milliseconds = round(1000 * at.timestamp)  # Faust's messages have seconds
            made = work(Raw(at.topic, at.value, at.key, at.headers or (), partition, at.offset, milliseconds))
            await out.send(key=made.key, value=made.value, headers=dict(made.headers), partition=partition)
            done += 1
            if done >= count:
                await app.producer.flush()
                leave(meter.result(done))

    logging.disable(logging.WARNING)
    tune_collector()
    sys.argv = ["bench", "worker", "--loglevel", "error", "--without-web"]
    app.main()


main()
