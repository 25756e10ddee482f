"""Records as a foreign producer may write them: header names of any bytes, and batches made by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

COMMIT, ABORT = 1, 0


class AnyName(str):
    """A name of any bytes. aiokafka's clients send what `encode` returns."""

    __slots__ = ()

    def __new__(cls, name: bytes) -> AnyName:
        """Held as topics/tolerant holds it."""
        return super().__new__(cls, name, "utf-8", "surrogateescape")

    def encode(self, *_: Any) -> bytes:
        """The bytes it was made of."""
        return super().encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Foreign:
    """One record to write."""

    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()

    @property
    def read(self) -> tuple[Any, ...]:
        """What a reader is to see of it: key, value, headers."""
        return self.key, self.value, tuple((str(AnyName(name)), content) for name, content in self.headers)


def seen(record: Any) -> tuple[Any, ...]:
    """The same of a record that was read."""
    return record.key, record.value, tuple(record.headers)


def _builder(records: Sequence[Foreign], *, gzip: bool = False, transactional: bool = False, producer: int = -1) -> Any:
    builder = _DefaultRecordBatchBuilderPy(2, int(gzip), transactional, producer, -1, -1, 1 << 24)
    for offset, record in enumerate(records):
        headers = [(AnyName(name), content) for name, content in record.headers]
        assert builder.append(offset, 1000 + offset, record.key, record.value, headers) is not None
    return builder


def sealed(batch: bytes) -> bytes:
    """The batch with the checksum of what it holds."""
    crc = calc_crc32c(batch[DefaultRecordBase.ATTRIBUTES_OFFSET :])
    return batch[: DefaultRecordBase.CRC_OFFSET] + struct.pack(">I", crc) + batch[DefaultRecordBase.ATTRIBUTES_OFFSET :]


def batch_of(
    records: Sequence[Foreign], first: int = 0, *, gzip: bool = False, transactional: bool = False, producer: int = -1
) -> bytes:
    """A batch as a broker hands it out, its records at `first` and behind."""
    made = _builder(records, gzip=gzip, transactional=transactional, producer=producer).build()
    return struct.pack(">q", first) + bytes(made[8:])


def marker(kind: int, at: int, producer: int) -> bytes:
    """The control batch that ends a transaction."""
    made = bytearray(batch_of([Foreign(struct.pack(">hh", 0, kind), b"\0" * 6)], at, transactional=True, producer=producer))
    made[DefaultRecordBase.ATTRIBUTES_OFFSET + 1] |= DefaultRecordBase.CONTROL_MASK
    return sealed(bytes(made))


async def produce_foreign(bootstrap: str, topic: str, records: Sequence[Foreign], *, partition: int = 0) -> int:
    """Write the records as one batch; the offset of the first, once the broker has confirmed it."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        batch = producer.create_batch()
        batch._builder = _builder(records)  # aiokafka's builder in C sends none but valid names
        batch._relative_offset = len(records)
        return int((await (await producer.send_batch(batch, topic, partition=partition))).offset)
    finally:
        await producer.stop()
