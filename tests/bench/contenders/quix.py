"""The same on quixstreams 3.28 (librdkafka): `apply` and `to_topic`, at least once. Runs in a virtual environment of its own."""

from __future__ import annotations

from typing import Any

from quixstreams import Application, message_context
from quixstreams.models import TopicConfig

from tests.bench.contenders.meter import Meter, configuration, leave, tune_collector
from tests.bench.shared import PARTITIONS, Work
from topics.record import Raw


def main() -> None:
    """Until `count` records are through."""
    given = configuration()
    work, meter = Work(given["source"], given["decisions"]), Meter()
    count, done = given["count"], 0
    config = TopicConfig(num_partitions=PARTITIONS, replication_factor=1)
    app = Application(
        broker_address=given["bootstrap"], consumer_group=given["group"], auto_offset_reset="earliest", auto_create_topics=False,
        loglevel="ERROR", producer_extra_config={"linger.ms": 5, "batch.size": 131_072},
    )  # fmt: skip
    source = app.topic(given["source"], value_deserializer="bytes", key_deserializer="bytes", config=config)
    out = app.topic(given["decisions"], value_serializer="bytes", key_serializer="bytes", config=config)
    frame: Any = app.dataframe(source)
    coordinates = message_coordinates()
    made: Any = None

    def decided(value: bytes, key: bytes, timestamp: int, headers: Any) -> bytes:
        nonlocal made, done
        meter.start()
        partition, offset = coordinates()
        made = work(Raw(given["source"], value, key, headers or (), partition, offset, timestamp))
        done += 1
        return made.value  # type: ignore[no-any-return]  # a decision always has a value

    def stamped(value: bytes, key: bytes, timestamp: int, headers: Any) -> list[tuple[str, bytes]]:
        return list(made.headers)

    frame = frame.apply(decided, metadata=True)
    frame = frame.set_headers(stamped)
    frame = frame.to_topic(out, key=lambda value: made.key)
    tune_collector()
    app.run(count=count, collect=False)  # stops, flushes and commits once all are through
    leave(meter.result(done))


def message_coordinates() -> Any:
    """A function that tells partition and offset of the record at hand, from quixstreams' message context."""

    def coordinates() -> tuple[int, int]:
        at = message_context()
        return at.partition, at.offset

    return coordinates


main()
