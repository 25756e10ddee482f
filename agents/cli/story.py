"""The story of one decision, gathered from the topics: what `headrace explain` tells."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from aiokafka import TopicPartition

from agents.cli.masked import plain, shown
from agents.engine.discover import Agent
from agents.engine.topology import placed
from agents.settings import Settings
from schemas.dead_letter import Fault
from schemas.identity import decision_id, input_hash
from schemas.manifest import Manifest
from topics import names
from topics.decode import decoder
from topics.decode.result import Control, Decoded, Skipped
from topics.record import RawRecord
from topics.spec import Registry, TopicSpec
from topics.verify.find import CHUNK, Finder
from topics.verify.parse import PREFIX
from topics.verify.place import Place, Placing

MINUTE = 60_000
BEFORE, AFTER = 10 * MINUTE, 10 * MINUTE
"""How far from a decision its calls, judgement and receipt are looked for, in milliseconds of the records' own time."""
NEIGHBOURS = 256
"""Receipts before the one looked for that are read as well, to see whom it names."""
Told = dict[str, Any]


@dataclass(slots=True)
class Story:
    """All that the topics hold about one decision or dead letter. `outcome` is its body, or the headers of a dead letter.

    `at` is (topic, partition, offset) of the first copy, which stands; `copies` how many there are. What is None was not found,
    and `missing` says of each what that can mean.
    """

    agent: str
    id: str
    kind: str
    at: tuple[str, int, int]
    copies: int
    outcome: Told
    source: Told
    inputs: list[Told] = field(default_factory=list)
    judgement: Told | None = None
    calls: list[Told] = field(default_factory=list)
    manifest: Told | None = None
    place: Place = field(default_factory=Place)
    missing: list[str] = field(default_factory=list)

    def as_dict(self) -> Told:
        """The story as one JSON-able object."""
        receipt = self.place.receipt
        closed = receipt.model_dump(mode="json", by_alias=True) if receipt is not None else None
        if closed is not None and closed["chain"] is not None:
            for kind in ("decisions", "dead_letters", "judgements"):
                del closed["chain"][kind]
        chain = {"number": self.place.number, "verified": self.place.verified, "said": self.place.said}
        told = {
            "decision_id": self.id, "agent": self.agent, "kind": self.kind,
            "at": dict(zip(("topic", "partition", "offset"), self.at, strict=True)), "copies": self.copies,
            "outcome": self.outcome, "source": self.source, "inputs": self.inputs, "judgement": self.judgement,
            "calls": self.calls, "manifest": self.manifest, "receipt": closed, "receipt_offset": self.place.at, "chain": chain,
            "missing": self.missing,
        }  # fmt: skip
        cleaned: Told = plain(told)
        return cleaned


@dataclass(frozen=True, slots=True)
class Copies:
    """The records with one id, in log order; `dead` when they are dead letters."""

    agent: Agent
    id: str
    records: Sequence[RawRecord]
    dead: bool


def id_of(record: RawRecord, *, dead: bool) -> str:
    """The id in the headers of a decision or a dead letter; of a name that stands twice the last is ours."""
    wanted = f"{PREFIX}id" if dead else "ce_id"
    found = [value for name, value in record.headers if name == wanted and value is not None]
    return found[-1].decode(errors="replace") if found else ""


class Teller:
    """Finds and tells. `agents` as their files say; their topics are placed as the settings say."""

    def __init__(self, finder: Finder, agents: Sequence[Agent], settings: Settings) -> None:
        self._finder = finder
        self._agents = [placed(agent, Registry(settings.topics)) for agent in agents]
        self._run = settings.run

    # ---- finding -------------------------------------------------------------------------------------------------------
    async def find(self, id: str, most: int) -> Copies | None:
        """The decision or dead letter with this id, looked for in the newest `most` offsets of each partition, newest first."""
        topics = [(agent, topic, dead) for agent in self._agents for topic, dead in _outcomes(agent)]
        wanted = id.encode()
        for agent, topic, dead in topics:
            tps = await self._finder.partitions(topic)
            found: list[RawRecord] = []
            async with aclosing(self._finder.back(tps, most)) as pieces:
                async for _, piece in pieces:
                    found = [r for r in piece if _has(r, wanted) and id_of(r, dead=dead) == id]
                    if found:
                        break
            if found:
                return await self._around(agent, id, found[0], dead)
        return None

    async def at(self, topic: str, partition: int, offset: int) -> tuple[Copies | None, str]:
        """The outcome that lies at these coordinates, or that of the source record there; else why there is none."""
        record = await self._finder.record(topic, partition, offset)
        if record is None:
            return None, f"{topic}/{partition} has no record at offset {offset} (any more)"
        for agent in self._agents:
            for name, dead in _outcomes(agent):
                if name == topic:
                    id = id_of(record, dead=dead)
                    copies: Copies | None = await self._around(agent, id, record, dead)
                    return (copies, "") if id else (None, f"the record at {topic}/{partition} offset {offset} has no id")
        readers = [agent for agent in self._agents if agent.reads.topic == topic]
        if not readers:
            return None, f"no agent reads or writes {topic}; headrace agents list tells what they do"
        for agent in readers:
            copies = await self._decided(agent, record)
            if copies is not None:
                return copies, ""
        return None, f"the record at {topic}/{partition} offset {offset} has no outcome: it was skipped, or is not decided yet"

    async def _around(self, agent: Agent, id: str, record: RawRecord, dead: bool) -> Copies:
        """The record and its repeats, which lie near: a worker that crashed left them."""
        tp = TopicPartition(record.topic, record.partition)
        found = [r async for r in self._all(tp, record.offset - CHUNK, record.offset + CHUNK) if id_of(r, dead=dead) == id]
        return Copies(agent, id, found or [record], dead)

    async def _decided(self, agent: Agent, source: RawRecord) -> Copies | None:
        """The outcome of a source record: it was written later, to the same partition number. Of several parts the first."""
        values = _values(agent.reads, source)
        value_hash = input_hash(source.value)
        ids = {
            decision_id(agent.name, source.topic, source.partition, source.offset, value_hash, part, self._run)
            for part in range(max(1, len(values)))
        }
        for topic, dead in _outcomes(agent):
            tp = TopicPartition(topic, source.partition)
            if tp not in await self._finder.partitions(topic):
                continue
            begin = await self._finder.since(tp, source.timestamp)
            found = [r async for r in self._all(tp, begin, None) if id_of(r, dead=dead) in ids]
            if found:
                id = id_of(found[0], dead=dead)
                return Copies(agent, id, [r for r in found if id_of(r, dead=dead) == id], dead)
        return None

    async def _all(self, tp: TopicPartition, first: int, end: int | None) -> Any:
        async for batch in self._finder.between(tp, first, 1 << 62 if end is None else end):
            for record in batch:
                yield record

    # ---- telling -------------------------------------------------------------------------------------------------------
    async def tell(self, copies: Copies) -> Story:
        """Gather the story. Raises BrokerError where the brokers stop answering."""
        first, agent = copies.records[0], copies.agent
        body = _letter(first) if copies.dead else _json(first.value)
        said = body if copies.dead else body.get("source") or {}
        where = (str(said.get("topic")), int(said.get("partition", -1)), int(said.get("offset", -1)))
        source, record = await self._source(agent, where, str(said.get("input_hash")), int(body.get("part") or 0))
        at = (first.topic, first.partition, first.offset)
        kind = "dead letter" if copies.dead else str(body.get("kind", "decision"))
        story = Story(agent.name, copies.id, kind, at, len(copies.records), body, source)
        if record is None:
            story.missing.append("its source record is not in the log any more (retention)")
        judgements: list[RawRecord] = []
        if not copies.dead:
            story.inputs = [await self._input(agent, one) for one in body.get("inputs") or []]
            judgements = await self._judgements(agent, first, copies.id, story)
            story.calls = await self._calls(agent, first, copies.id, body.get("call_id"), story)
            story.manifest = await self._manifest(body.get("manifest"), story)
        story.place = await self._place(agent, first, where[2], copies, judgements, body)
        return story

    async def _source(self, agent: Agent, where: tuple[str, int, int], wanted: str, part: int) -> tuple[Told, RawRecord | None]:
        record = await self._finder.record(*where)
        told: Told = {"topic": where[0], "partition": where[1], "offset": where[2], "there": record is not None}
        if record is not None:
            told["input_hash_matches"] = input_hash(record.value) == wanted
            told["record"] = _record(agent.reads, record, part)
        return told, record

    async def _input(self, agent: Agent, one: Told) -> Told:
        """A joined row as the decision names it, and the row itself where its log still has it."""
        told = dict(one)
        join = agent.joins.get(str(one.get("name")))
        if one.get("partition") is None or one.get("offset") is None:
            return told
        record = await self._finder.record(str(one.get("topic")), int(one["partition"]), int(one["offset"]))
        told["there"] = record is not None
        if record is not None and join is not None:
            told["record"] = _record(join.topic, record, 0)
        return told

    async def _judgements(self, agent: Agent, decision: RawRecord, id: str, story: Story) -> list[RawRecord]:
        tp = TopicPartition(names.judgements(agent.name), decision.partition)
        if tp not in await self._finder.partitions(tp.topic):
            story.missing.append("no judgements are kept")
            return []
        wanted = id.encode()
        found = [
            r async for r in self._near(tp, decision.timestamp - BEFORE, decision.timestamp + AFTER)
            if r.value and wanted in r.value and _json(r.value).get("decision_id") == id
        ]  # fmt: skip
        if found:
            story.judgement = _json(found[0].value)
        elif story.kind != "retraction":
            story.missing.append("its judgement is gone (retention, or it was erased); its digest stands in the receipt")
        return found

    async def _calls(self, agent: Agent, decision: RawRecord, id: str, call_id: str | None, story: Story) -> list[Told]:
        """Every call that asked about the record, losing ones and timeouts included, and the one that the answer came from."""
        found: dict[str, Told] = {}
        begin = _ms(story.outcome.get("received_at"), decision.timestamp) - BEFORE
        for tp in await self._finder.partitions(names.calls(agent.name)):
            await self._take_calls(self._near(tp, begin, decision.timestamp + AFTER), id, call_id, found)
        if call_id is not None and call_id not in found:  # a cache may have had the answer of a call long ago
            for tp in await self._finder.partitions(names.calls(agent.name)):
                await self._take_calls(self._all(tp, 0, None), id, call_id, found)
        if call_id is not None and call_id not in found:
            story.missing.append(f"call {call_id} is not in {names.calls(agent.name)} (retention, or its worker ended first)")
        return sorted(found.values(), key=lambda call: (str(call.get("queued_at")), call.get("attempt") or 0))

    @staticmethod
    async def _take_calls(records: Any, id: str, call_id: str | None, found: dict[str, Told]) -> None:
        wanted = [text.encode() for text in (id, call_id) if text]
        async for record in records:
            if record.value and any(text in record.value for text in wanted):
                call = _json(record.value)
                if id in (call.get("records") or []) or call.get("call_id") == call_id:
                    found.setdefault(str(call.get("call_id")), call)

    async def _manifest(self, hashed: Any, story: Story) -> Told | None:
        for tp in await self._finder.partitions(names.MANIFESTS):
            async for record in self._all(tp, 0, None):
                if record.key == str(hashed).encode() and record.value:
                    told = _json(record.value)
                    told["hash_matches"] = Manifest.model_validate_json(record.value).hash() == hashed
                    return told
        story.missing.append(f"manifest {hashed} is not in {names.MANIFESTS}")
        return None

    async def _place(
        self, agent: Agent, first: RawRecord, offset: int, copies: Copies, judgements: Sequence[RawRecord], body: Told
    ) -> Place:
        tp = TopicPartition(names.receipts(agent.name), first.partition)
        placing = Placing(offset, str(body.get("run") or self._run), copies.records, judgements)
        if tp not in await self._finder.partitions(tp.topic):
            return placing.place()
        begin = await self._finder.since(tp, first.timestamp - BEFORE)
        async for record in self._all(tp, begin - NEIGHBOURS, None):
            if placing.add(record):
                break
        return placing.place()

    async def _near(self, tp: TopicPartition, begin: int, end: int) -> Any:
        async for record in self._all(tp, await self._finder.since(tp, begin), None):
            if record.timestamp > end:
                return
            yield record


def _outcomes(agent: Agent) -> list[tuple[str, bool]]:
    return [(agent.writes.topic, False), (names.dead_letters(agent.name), True)]


def _has(record: RawRecord, id: bytes) -> bool:
    return any(value == id for _, value in record.headers)


def _json(value: bytes | None) -> Told:
    try:
        body = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _letter(record: RawRecord) -> Told:
    told: Told = {}
    for name, value in record.headers:
        if name.startswith(PREFIX):
            told[name.removeprefix(PREFIX)] = (value or b"").decode(errors="replace")
    return told


def _values(spec: TopicSpec[Any], record: RawRecord) -> Sequence[Any]:
    result = decoder(spec)(record)
    return result.values if isinstance(result, Decoded) else ()


def _record(spec: TopicSpec[Any], record: RawRecord, part: int) -> Told:
    """What a record says, as far as it can be decoded and may be shown."""
    result = decoder(spec)(record)
    if isinstance(result, Decoded) and part < len(result.values):
        value = result.values[part]
        if isinstance(value, Skipped):
            return {"skipped": value.rule}
        return {"fault": str(value)} if isinstance(value, Fault) else shown(value)
    if isinstance(result, Control):
        return {"control": result.kind}
    return {"fault": str(result)} if isinstance(result, Fault) else {}


def _ms(at: Any, otherwise: int) -> int:
    try:
        return int(datetime.fromisoformat(str(at)).timestamp() * 1000)
    except ValueError:
        return otherwise


