"""An agent's topics on a real broker, with what a worker would have written to them, until a test breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from schemas.dead_letter import DeadLetter
from schemas.identity import decision_id, input_hash
from schemas.receipt import Receipt
from topics.progress import encode
from topics.verify.read import Target


@dataclass
class Scene:
    """Topics of one agent with two partitions, and what a worker publishes to them."""

    bootstrap: str
    target: Target
    producer: AIOKafkaProducer
    promise: str = "exactly-once"

    async def send(self, topic: str, partition: int, value: bytes | None, **rest: Any) -> int:
        """One record, confirmed; its offset."""
        offset: int = (await self.producer.send_and_wait(topic, value, partition=partition, **rest)).offset
        return offset

    async def inputs(self, partition: int, count: int) -> None:
        """Input records `{"n": offset}`."""
        for n in range(count):
            await self.send(self.target.source, partition, b'{"n":%d}' % n)

    def ids(self, partition: int, offset: int) -> tuple[str, str]:
        """Input hash and decision id of an input record."""
        value_hash = input_hash(b'{"n":%d}' % offset)
        return value_hash, decision_id(self.target.agent, self.target.source, partition, offset, value_hash, 0, "live")

    async def decide(self, partition: int, offset: int, *, into: int | None = None) -> None:
        """A decision as the engine writes it, as far as verification looks."""
        value_hash, made = self.ids(partition, offset)
        source = {"topic": self.target.source, "partition": partition, "offset": offset, "input_hash": value_hash}
        body = {"id": made, "agent": self.target.agent, "run": "live", "part": 0, "parts": 1, "source": source}
        await self.send(self.target.decisions, partition if into is None else into, orjson.dumps(body), key=b"k")

    async def bury(self, partition: int, offset: int, value: bytes | None = None) -> None:
        """A dead letter: the input's own bytes, and headers that say what it is."""
        value_hash, made = self.ids(partition, offset)
        said = DeadLetter(
            id=made, agent=self.target.agent, version=1, stage="decode", reason="not-json",
            topic=self.target.source, partition=partition,
            offset=offset, input_hash=value_hash, at="2026-11-23T12:00:00.000Z",
        )  # fmt: skip
        headers = [("headrace_offset", b"999")]  # one that the input brought along
        headers += [(f"headrace_{k}", str(v).encode()) for k, v in said if v is not None]
        await self.send(self.target.dead_letters, partition, value or b'{"n":%d}' % offset, headers=headers)

    async def receipt(self, partition: int, seq: int, first: int, to: int, **rest: Any) -> None:
        """A receipt for [first, to)."""
        base: dict[str, Any] = {"closed": [(first, to)], "decisions": to - first}
        made = Receipt(
            agent=self.target.agent, version=1, promise=self.promise, topic=self.target.source, partition=partition, seq=seq,
            from_=first, to=to, worker="w", at="2026-11-23T12:00:00.000Z", **(base | rest),
        )  # fmt: skip
        await self.send(self.target.receipts, partition, made.model_dump_json(by_alias=True).encode())

    async def commit(self, partition: int, offset: int, metadata: str = "") -> None:
        """The group's offset."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=self.target.group, enable_auto_commit=False)
        await consumer.start()
        tp = TopicPartition(self.target.source, partition)
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(offset, metadata)})
        await consumer.stop()

    async def work(self) -> None:
        """Two partitions: 0 with six records in two commits (decisions, a dead letter, a skip), 1 with two and one pending."""
        await self.inputs(0, 6)
        await self.inputs(1, 3)
        for offset in (0, 1, 2):
            await self.decide(0, offset)
        await self.receipt(0, 1, 0, 3)
        await self.decide(0, 3)
        await self.bury(0, 4)
        await self.receipt(0, 2, 3, 6, decisions=1, dead_letters=1, skips={"closed-loan": [(5, 6)]})
        await self.commit(0, 6, encode(6, 2, []))
        await self.decide(1, 0)
        await self.decide(1, 1)
        await self.receipt(1, 1, 0, 2)
        await self.commit(1, 2, encode(2, 1, []))
