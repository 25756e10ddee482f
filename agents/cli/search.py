"""Finding the outcome that a person asks for, by id or by place: only what bears out its key, its headers and its coordinates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from agents.engine.discover import Agent
from agents.engine.topology import placed
from agents.settings import Settings
from schemas.identity import decision_id, input_hash
from topics import names
from topics.decode import decoder
from topics.decode.result import Decoded
from topics.record import RawRecord
from topics.spec import Registry
from topics.verify import parse
from topics.verify.facts import Outcome
from topics.verify.find import CHUNK, Finder

MOST_SAID = 20
"""Sentences of one kind that a story has at most: whoever may append could write any number of records that give one."""


class Sentences:
    """Sentences for a person, each once, and no more of them than can be read."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._more = 0

    def add(self, text: str) -> None:
        """One more, unless it is there."""
        if text in self._texts:
            return
        if len(self._texts) < MOST_SAID:
            self._texts[text] = None
        else:
            self._more += 1

    def texts(self) -> list[str]:
        """All that were kept, and how many were not."""
        return [*self._texts, *([f"and {self._more} more such records"] if self._more else [])]


@dataclass(frozen=True, slots=True)
class Copies:
    """The records with one id in log order, and each as verification reads it; `dead` when they are dead letters."""

    agent: Agent
    id: str
    records: Sequence[RawRecord]
    outcomes: Sequence[Outcome]
    dead: bool


@dataclass(slots=True)
class _Found:
    """Records that are what they say, with the outcome in each."""

    records: list[RawRecord] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, id: str) -> tuple[list[RawRecord], list[Outcome]]:
        pairs = [(r, o) for r, o in zip(self.records, self.outcomes, strict=True) if o.id == id]
        return [r for r, _ in pairs], [o for _, o in pairs]


def where(record: RawRecord) -> str:
    """Where a record lies, for a sentence."""
    return f"{record.topic}/{record.partition} offset {record.offset}"


def id_of(record: RawRecord, *, dead: bool) -> str:
    """The id in the headers of a decision or a dead letter; of a name that stands twice the last is ours."""
    wanted = f"{parse.PREFIX}id" if dead else "ce_id"
    found = [value for name, value in record.headers if name == wanted and value is not None]
    return found[-1].decode(errors="replace") if found else ""


def outcome_in(record: RawRecord, agent: str, run: str, *, dead: bool) -> Outcome | str:
    """The outcome in a record of an agent's topic, or a sentence on what it is instead, by the rules of verification.

    Key and headers of a decision are in no digest, so its body has to bear them out; and an id has to be the one that the
    coordinates give, or another record's story could be told under it. `run` is that of an outcome which names none.
    """
    found = parse.dead_letter(record) if dead else parse.decision(record)
    if isinstance(found, str):
        return found
    if found.agent != agent:
        return f"it is of the agent {found.agent}"
    if found.label is not None:
        return found.label
    if id_of(record, dead=dead) != found.id:
        return "its header ce_id is not what its body says"
    if found.partition != record.partition:
        return f"its source is in partition {found.partition}"
    if found.id != found.due_id(run):
        return "its id is not the one that its coordinates give"
    body = None if dead else parse.decision_body(record)
    return body if isinstance(body, str) else found


class Search:
    """Finds. `agents` as their files say; their topics are placed as the settings say.

    `passed` says which records bear an id that was looked for and are not what they say, so that they were not told.
    """

    def __init__(self, finder: Finder, agents: Sequence[Agent], settings: Settings) -> None:
        self._finder = finder
        self._agents = [placed(agent, Registry(settings.topics)) for agent in agents]
        self._run = settings.run
        self.passed = Sentences()

    async def find(self, id: str, most: int) -> Copies | None:
        """The decision or dead letter with this id, looked for in the newest `most` offsets of each partition, newest first."""
        wanted = id.encode()
        for agent in self._agents:
            for topic, dead in _outcomes(agent):
                first = await self._newest(agent, topic, wanted, most, dead)
                if first is not None:
                    return await self._around(agent, id, first, dead)
        return None

    async def _newest(self, agent: Agent, topic: str, wanted: bytes, most: int, dead: bool) -> RawRecord | None:
        async with aclosing(self._finder.back(await self._finder.partitions(topic), most)) as pieces:
            async for _, piece in pieces:
                found = self._sound(agent, (r for r in piece if _has(r, wanted)), {wanted.decode()}, dead)
                if found.records:
                    return found.records[0]
        return None

    async def at(self, topic: str, partition: int, offset: int) -> tuple[Copies | None, str]:
        """The outcome that lies at these coordinates, or that of the source record there; else why there is none."""
        record = await self._finder.record(topic, partition, offset)
        if record is None:
            return None, f"{topic}/{partition} has no record at offset {offset} (any more)"
        for agent in self._agents:
            for name, dead in _outcomes(agent):
                if name == topic:
                    found = outcome_in(record, agent.name, self._run, dead=dead)
                    if isinstance(found, str):
                        return None, f"the record at {where(record)} is not told: {found}"
                    return await self._around(agent, found.id, record, dead), ""
        readers = [agent for agent in self._agents if agent.reads.topic == topic]
        if not readers:
            return None, f"no agent reads or writes {topic}; headrace agents list tells what they do"
        for agent in readers:
            copies = await self._decided(agent, record)
            if copies is not None:
                return copies, ""
        return None, f"the record at {where(record)} has no outcome: it was skipped, or is not decided yet"

    async def _around(self, agent: Agent, id: str, record: RawRecord, dead: bool) -> Copies:
        """The record and its repeats, which lie near: a worker that crashed left them."""
        tp = TopicPartition(record.topic, record.partition)
        near = [r async for r in self._all(tp, record.offset - CHUNK, record.offset + CHUNK)]
        return Copies(agent, id, *self._sound(agent, near, {id}, dead).of(id), dead)

    async def _decided(self, agent: Agent, source: RawRecord) -> Copies | None:
        """The outcome of a source record: it was written later, to the same partition number. Of several parts the first."""
        result = decoder(agent.reads)(source)
        parts = len(result.values) if isinstance(result, Decoded) else 0
        value_hash = input_hash(source.value)
        ids = {
            decision_id(agent.name, source.topic, source.partition, source.offset, value_hash, part, self._run)
            for part in range(max(1, parts))
        }
        for topic, dead in _outcomes(agent):
            tp = TopicPartition(topic, source.partition)
            if tp not in await self._finder.partitions(topic):
                continue
            begin = await self._finder.since(tp, source.timestamp)
            found = self._sound(agent, [r async for r in self._all(tp, begin, None)], ids, dead)
            if found.records:
                id = found.outcomes[0].id
                return Copies(agent, id, *found.of(id), dead)
        return None

    def _sound(self, agent: Agent, records: Iterable[RawRecord], ids: set[str], dead: bool) -> _Found:
        """Of the records with one of the ids in their headers those that are what they say; of the others it is said."""
        sound = _Found()
        for record in records:
            if (id := id_of(record, dead=dead)) in ids:
                found = outcome_in(record, agent.name, self._run, dead=dead)
                if isinstance(found, str):
                    self.passed.add(f"the record at {where(record)} bears the id {id} and is passed over: {found}")
                else:
                    sound.records.append(record)
                    sound.outcomes.append(found)
        return sound

    async def _all(self, tp: TopicPartition, first: int, end: int | None) -> AsyncIterator[RawRecord]:
        async for batch in self._finder.between(tp, first, 1 << 62 if end is None else end):
            for record in batch:
                yield record


def _outcomes(agent: Agent) -> list[tuple[str, bool]]:
    return [(agent.writes.topic, False), (names.dead_letters(agent.name), True)]


def _has(record: RawRecord, id: bytes) -> bool:
    return any(value == id for _, value in record.headers)
