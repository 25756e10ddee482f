"""The story of one decision, gathered from the topics: what `headrace explain` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson
from aiokafka import TopicPartition

from agents.cli.masked import plain, shown
from agents.cli.search import Copies, Sentences, where
from schemas.audit import Call, Judgement
from schemas.dead_letter import Fault
from schemas.identity import input_hash
from schemas.manifest import Manifest
from topics import names
from topics.decode import decoder
from topics.decode.result import Control, Decoded, Skipped
from topics.record import RawRecord
from topics.spec import TopicSpec
from topics.verify import parse
from topics.verify.facts import Outcome
from topics.verify.find import Finder
from topics.verify.place import Place, Placing

MINUTE = 60_000
BEFORE, AFTER = 10 * MINUTE, 10 * MINUTE
"""How far from a decision its calls, judgement and receipt are looked for, in milliseconds of the records' own time."""
NEIGHBOURS = 256
"""Receipts before the one looked for that are read as well, to see whom it names."""
Told = dict[str, Any]
_OF_A_COPY = (f"{parse.PREFIX}at", f"{parse.PREFIX}detail")
"""Headers of a dead letter that a repeat may have otherwise."""


@dataclass(slots=True)
class Story:
    """All that the topics hold about one decision or dead letter. `outcome` is its body, or the headers of a dead letter.

    `at` is (topic, partition, offset) of the copy that is told: the one that the receipt holds, else the first; `copies` how many
    there are. What is None was not found, and `missing` says of each what that can mean, and of each record that can not be read
    as what its topic is for. `doubts` say which records were passed over since they are not what they claim to be.
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
    doubts: list[str] = field(default_factory=list)

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
            "missing": self.missing, "doubts": self.doubts,
        }  # fmt: skip
        cleaned: Told = plain(told)
        return cleaned


@dataclass(slots=True)
class _Calls:
    """The calls that were found, each once: by its id and the digest of what it says, with the places of its first copy."""

    found: dict[tuple[str, bytes], tuple[RawRecord, Call]] = field(default_factory=dict)

    def add(self, record: RawRecord, call: Call) -> None:
        self.found.setdefault((call.call_id, sha256(record.value or b"").digest()), (record, call))

    def has(self, call_id: str) -> bool:
        return any(known == call_id for known, _ in self.found)

    def told(self) -> list[Told]:
        """In the order in which they were asked."""
        calls = [call.model_dump(mode="json", by_alias=True) for _, call in self.found.values()]
        return sorted(calls, key=lambda call: (str(call["queued_at"]), call["attempt"]))

    def twins(self) -> list[str]:
        """What is to be said of ids that more than one call has."""
        counts = Counter(call_id for call_id, _ in self.found)
        places = {
            id: ", ".join(where(record) for (known, _), (record, _) in self.found.items() if known == id)
            for id, number in counts.items() if number > 1
        }  # fmt: skip
        return [f"call {id} is there as {counts[id]} calls, of which one was put in: {found}" for id, found in places.items()]


class Teller:
    """Tells what `Search` found. `run` is that of outcomes which name none."""

    def __init__(self, finder: Finder, run: str) -> None:
        self._finder = finder
        self._run = run

    async def tell(self, copies: Copies, doubts: Sequence[str] = ()) -> Story:
        """Gather the story. Raises BrokerError where the brokers stop answering."""
        return await _Telling(self._finder, self._run, copies).story(doubts)


class _Telling:
    """The telling of one story."""

    def __init__(self, finder: Finder, run: str, copies: Copies) -> None:
        self._finder = finder
        self._run = run
        self._copies = copies
        self._agent = copies.agent
        self._passed: Counter[TopicPartition] = Counter()
        self._missing = Sentences()
        times = [record.timestamp for record in copies.records]
        self._begin, self._end = min(times) - BEFORE, max(times) + AFTER

    async def story(self, doubts: Sequence[str]) -> Story:
        copies = self._copies
        judgements = [] if copies.dead else await self._judgements()
        place = await self._place([record for record, _ in judgements])
        record, outcome = copies.records[place.outcome], copies.outcomes[place.outcome]
        body = _letter(record) if copies.dead else _json(record.value)
        kind = "dead letter" if copies.dead else str(body.get("kind", "decision"))
        source, there = await self._source(outcome)
        at = (record.topic, record.partition, record.offset)
        story = Story(copies.agent.name, copies.id, kind, at, len(copies.records), body, source, place=place)
        if not there:
            self._missing.add("its source record is not in the log any more (retention)")
        self._compare(place)
        if not copies.dead:
            story.inputs = [await self._input(one) for one in body.get("inputs") or []]
            story.judgement = self._judgement(judgements, kind, place)
            story.calls = await self._calls(body, story.judgement or {}, place)
            story.manifest = await self._manifest(str(body.get("manifest")))
        story.missing = self._missing.texts()
        story.doubts = [*doubts, *(
            f"{number} records of {tp.topic}/{tp.partition} have times of their own, long after those of others behind them: "
            "they were passed over" for tp, number in self._passed.items()
        )]  # fmt: skip
        return story

    # ---- the outcome and its record ----------------------------------------------------------------------------------------
    async def _source(self, outcome: Outcome) -> tuple[Told, bool]:
        record = await self._finder.record(outcome.topic, outcome.partition, outcome.offset)
        told: Told = {
            "topic": outcome.topic, "partition": outcome.partition, "offset": outcome.offset, "there": record is not None,
        }  # fmt: skip
        if record is not None:
            told["input_hash_matches"] = input_hash(record.value) == outcome.input_hash
            told["record"] = _record(self._agent.reads, record, outcome.part)
        return told, record is not None

    async def _input(self, one: Told) -> Told:
        """A joined row as the decision names it, and the row itself where its log still has it."""
        told = dict(one)
        join = self._agent.joins.get(str(one.get("name")))
        if one.get("partition") is None or one.get("offset") is None:
            return told
        record = await self._finder.record(str(one.get("topic")), int(one["partition"]), int(one["offset"]))
        told["there"] = record is not None
        if record is not None and join is not None:
            told["record"] = _record(join.topic, record, 0)
        return told

    def _compare(self, place: Place) -> None:
        """Copies against the one that is told. Of several readers take the first, so that one has to say the same."""
        records, dead = self._copies.records, self._copies.dead
        said = _says(records[place.outcome], dead)
        others = [record.offset for record in records if _says(record, dead) != said]
        if _says(records[0], dead) != said:
            place.fault(
                f"the first of its copies, at offset {records[0].offset}, says something else, and its receipt does not anchor "
                "it: a repeat whose commit was never finished, or it was put in"
            )
        elif others:
            place.said.append(f"copies of it say something else, at offsets {', '.join(str(at) for at in others[:5])}")

    # ---- how it came about -------------------------------------------------------------------------------------------------
    async def _judgements(self) -> list[tuple[RawRecord, Judgement]]:
        """All that are of this decision, in log order: whoever may append could have written one before the worker did."""
        tp = TopicPartition(names.judgements(self._agent.name), self._copies.records[0].partition)
        if tp not in await self._finder.partitions(tp.topic):
            self._missing.add("no judgements are kept")
            return []
        wanted, found = self._copies.id.encode(), []
        async for record in self._finder.near(tp, self._begin, self._end, self._passed):
            if record.value and wanted in record.value:
                judgement = parse.judgement(record)
                if isinstance(judgement, str):
                    self._odd(record, judgement)
                elif judgement.decision_id == self._copies.id:
                    found.append((record, judgement))
        return found

    def _judgement(self, found: Sequence[tuple[RawRecord, Judgement]], kind: str, place: Place) -> Told | None:
        """The one to tell; that there are others which say something else."""
        if not found:
            if kind != "retraction":
                self._missing.add("its judgement is gone (retention, or it was erased); its digest stands in the receipt")
            return None
        record, judgement = found[place.judgement]
        for other, _ in found:
            if other.value != record.value:
                what = "that of a commit which was never finished, or put in"
                place.said.append(f"another judgement of it, not the one that is told, is at {where(other)}: {what}")
        return judgement.model_dump(mode="json", by_alias=True)

    async def _calls(self, body: Told, judgement: Told, place: Place) -> list[Told]:
        """Every call that asked about the record, losing ones and timeouts included, and the one that the answer came from."""
        found, call_id = _Calls(), body.get("call_id")
        begin = _ms(body.get("received_at"), self._begin + BEFORE) - BEFORE
        tps = await self._finder.partitions(names.calls(self._agent.name))
        for tp in tps:
            await self._take(self._finder.near(tp, begin, self._end, self._passed), call_id, found)
        if call_id is not None and (judgement.get("cache") or not found.has(call_id)):  # a cache has answers of long ago
            for tp in tps:
                await self._take(self._all(tp, 0), call_id, found)
        if call_id is not None and not found.has(call_id):
            topic = names.calls(self._agent.name)
            self._missing.add(f"call {call_id} is not in {topic} (retention, or its worker ended first)")
        for sentence in found.twins():
            place.fault(sentence)
        return found.told()

    async def _take(self, records: AsyncIterator[RawRecord], call_id: str | None, found: _Calls) -> None:
        id = self._copies.id
        wanted = [text.encode() for text in (id, call_id) if text]
        async for record in records:
            if record.value and any(text in record.value for text in wanted):
                call = parse.whole_call(record)
                if isinstance(call, str):
                    self._odd(record, call)
                elif id in call.records or call.call_id == call_id:
                    found.add(record, call)

    async def _manifest(self, hashed: str) -> Told | None:
        """The manifest that has the hash; else the first under its key, and that it has not."""
        other: Manifest | None = None
        for tp in await self._finder.partitions(names.MANIFESTS):
            async for record in self._all(tp, 0):
                if record.key == hashed.encode() and record.value:
                    found = parse.manifest(record)
                    if isinstance(found, str):
                        self._odd(record, found)
                    elif found.hash() == hashed:
                        return {**found.model_dump(mode="json", by_alias=True), "hash_matches": True}
                    else:
                        other = other or found
        if other is not None:
            return {**other.model_dump(mode="json", by_alias=True), "hash_matches": False}
        self._missing.add(f"manifest {hashed} is not in {names.MANIFESTS}")
        return None

    async def _place(self, judgements: Sequence[RawRecord]) -> Place:
        first, outcome = self._copies.records[0], self._copies.outcomes[0]  # all have one id, so one source and run
        tp = TopicPartition(names.receipts(self._agent.name), first.partition)
        placing = Placing(outcome.offset, outcome.run or self._run, self._copies.records, judgements)
        if tp not in await self._finder.partitions(tp.topic):
            return placing.place()
        begin = await self._finder.since(tp, self._begin)
        async for record in self._all(tp, begin - NEIGHBOURS):
            if placing.add(record):
                break
        return placing.place()

    # ---- reading -----------------------------------------------------------------------------------------------------------
    def _odd(self, record: RawRecord, why: str) -> None:
        self._missing.add(f"the record at {where(record)} names it and is passed over: {why}")

    async def _all(self, tp: TopicPartition, first: int) -> AsyncIterator[RawRecord]:
        async for batch in self._finder.between(tp, first, 1 << 62):
            for record in batch:
                yield record


def _says(record: RawRecord, dead: bool) -> int:
    """A hash of what an outcome says, without what a repeat may have otherwise."""
    if dead:
        return hash((record.value, tuple((name, value) for name, value in record.headers if name not in _OF_A_COPY)))
    return parse.content(record.value or b"")


def _json(value: bytes | None) -> Told:
    """A decision that was read as one before: as it stands, every digit of its numbers included."""
    body: Told = orjson.loads(value or b"")
    return body


def _letter(record: RawRecord) -> Told:
    told: Told = {}
    for name, value in record.headers:
        if name.startswith(parse.PREFIX):
            told[name.removeprefix(parse.PREFIX)] = (value or b"").decode(errors="replace")
    return told


def _record(spec: TopicSpec[Any], record: RawRecord, part: int) -> Told:
    """What a record says, as far as it can be decoded and may be shown."""
    result = decoder(spec)(record)
    if isinstance(result, Decoded) and 0 <= part < len(result.values):
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
    except (ValueError, OverflowError, OSError):
        return otherwise


