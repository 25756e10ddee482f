"""Reading what verification needs from Kafka: groupless, read committed, up to ends that are fixed before anything is read.

The order in which ends are fixed is what makes it right beside a running worker: the group's offset first, then the receipts,
then the outcomes, then the receipts again, then the input. What a receipt closes is therefore among the outcomes read, what
was published meanwhile is closed by the receipts read late, and no outcome names an input that was not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from schemas.errors import BrokerError, TopicError
from schemas.identity import input_hash
from topics.chain import head, letter_digest, value_digest
from topics.ends import end_offsets
from topics.progress import decode as decode_mark
from topics.stable_offsets import stable_offsets
from topics.tolerant.consumer import TolerantConsumer
from topics.verify import parse
from topics.verify.audit import DEAD_LETTERS, DECISIONS, JUDGEMENTS
from topics.verify.calls import Calls
from topics.verify.facts import Account, Edges, Offender, OrderKind, Outcome, Scope
from topics.verify.judge import judge
from topics.verify.ledger import Ledger

SETTLE_SECONDS = 5.0
"""How long an open transaction may hold up an end before what is in it is left to the next verification."""
STALL_SECONDS = 30.0
"""Without any progress for this long, reading gives up."""
NO_CALL = "model calls that decisions name are not there: their worker ended before it published them, or they were removed"
LATE_CLAIM = "model calls are missing of which their worker said only later that it could not publish them"
NO_WORKER = "model calls name no worker although the calls of their topic are chained: a worker of this release writes none"
Ends = dict[TopicPartition, int]
Progress = Callable[[str, int, int], None]
"""Called with topic, partition and the number of records read from it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One agent as verification sees it: topic names as they are on the broker, its consumer group, its promise of order."""

    agent: str
    source: str
    decisions: str
    dead_letters: str
    receipts: str
    group: str
    run: str = "live"
    order: OrderKind = "key"
    span: int = 50_000
    judgements: str | None = None
    calls: str | None = None


async def verify_agent(
    client: Mapping[str, Any], target: Target, *, progress: Progress | None = None, anchors: Mapping[int, str] | None = None
) -> Account:
    """Account for every input of one agent. `client` are aiokafka's connection arguments.

    `anchors` are heads of the audit chain that somebody has kept, by partition: each has to be in the chain still.

    Raises TopicError when the source topic does not exist, BrokerError when the brokers stop answering.
    """
    shared = {"enable_auto_commit": False, "auto_offset_reset": "earliest", **client}
    reader = TolerantConsumer(
        isolation_level="read_committed", fetch_max_wait_ms=50, max_partition_fetch_bytes=4 << 20, **shared
    )
    group = AIOKafkaConsumer(group_id=target.group, **shared)
    started: list[AIOKafkaConsumer] = []
    try:
        for consumer in (reader, group):
            started.append(consumer)
            await consumer.start()
        found = await shapes(client, [target.source, *_written(target), *([target.calls] if target.calls else [])])
        return await _Reading(target, client, reader, group, found, progress or _quiet, anchors or {}).run()
    except KafkaError as error:
        raise BrokerError(f"verifying agent {target.agent}: {error!r}") from error
    finally:
        for consumer in started:
            await consumer.stop()


def _written(target: Target) -> list[str]:
    """The topics of one agent whose partitions have a source's numbers, receipts last."""
    return [target.decisions, target.dead_letters, *([target.judgements] if target.judgements else []), target.receipts]


@dataclass(frozen=True, slots=True)
class Shape:
    """A topic's partition numbers (none where it does not exist), and whether compaction may remove records of it."""

    partitions: tuple[int, ...] = ()
    compacted: bool = False


async def shapes(client: Mapping[str, Any], topics: Iterable[str]) -> dict[str, Shape]:
    """Topic -> its shape. Asks for all topics at once, since asking for one that does not exist could create it."""
    wanted = list(topics)
    admin = AIOKafkaAdminClient(**client)
    await admin.start()
    try:
        described = {found["topic"]: found["partitions"] for found in await admin.describe_topics()}
        there = [name for name in wanted if name in described]
        policies = await _cleanup_policies(admin, there)
    finally:
        await admin.close()
    found = {
        name: Shape(tuple(sorted(p["partition"] for p in described[name])), "compact" in policies.get(name, "")) for name in there
    }
    return {name: found.get(name, Shape()) for name in wanted}


async def _cleanup_policies(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, str]:
    # Without a filter on keys: Tansu hangs up on one.
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    policies = {}
    try:
        for answer in await admin.describe_configs(asked):
            for _, _, _, topic, configs in answer.resources:
                policies[topic] = next((entry[1] or "" for entry in configs if entry[0] == "cleanup.policy"), "")
    except KafkaError:
        return {}  # a broker that does not describe its topics does not compact them either
    return policies


def _quiet(topic: str, partition: int, records: int) -> None:
    """Progress for nobody."""


class _Reading:
    def __init__(
        self, target: Target, client: Mapping[str, Any], reader: AIOKafkaConsumer, group: AIOKafkaConsumer,
        shapes: Mapping[str, Shape], progress: Progress, anchors: Mapping[int, str],
    ) -> None:  # fmt: skip
        self.target = target
        self.reader = reader
        self.client = client
        self.group = group
        self.shapes = shapes
        self.progress = progress
        self.anchors = anchors
        self.calls = Calls()
        self.account = Account(target.agent, target.source, target.group)

    async def run(self) -> Account:
        target = self.target
        numbers = {name: shape.partitions for name, shape in self.shapes.items()}
        if not numbers[target.source]:
            raise TopicError(f"verifying agent {target.agent}: its source topic {target.source} does not exist")
        for name, found in numbers.items():
            if len(found) < len(numbers[target.source]) and name != target.calls:
                self.account.notes.append(f"{name} has {len(found)} partitions, its source {len(numbers[target.source])}")
        tps = {name: [TopicPartition(name, n) for n in found] for name, found in numbers.items()}
        committed = await self._committed(tps[target.source])
        self.starts = await self._starts([tp for found in tps.values() for tp in found])
        receipts = await self._settled_ends(tps[target.receipts])
        outcomes = await self._settled_ends([tp for name in _written(target)[:-1] for tp in tps[name]])
        late = await self._settled_ends(tps[target.receipts])
        ends = receipts | outcomes | await self._settled_ends(tps[target.source])
        for number in numbers[target.source]:
            await self._partition(number, ends, late, committed.get(number))
        for name in (target.decisions, target.dead_letters):
            for number in numbers[name][len(numbers[target.source]) :]:
                await self._beyond(TopicPartition(name, number), ends)
        if target.calls:
            await self._calls(tps[target.calls])
        return self.account

    # ---- one source partition ----------------------------------------------------------------------------------------------
    async def _partition(self, number: int, ends: Ends, late: Ends, committed: tuple[int, str] | None) -> None:
        target = self.target
        scope = Scope(
            target.agent, target.source, number, target.decisions, target.dead_letters, target.receipts, target.run,
            target.order, target.span, target.judgements or "",
        )  # fmt: skip
        ledger = Ledger(scope, self.anchors.get(number))
        source, receipts = TopicPartition(target.source, number), TopicPartition(target.receipts, number)
        async for batch in self._read(source, 0, ends.get(source, 0)):
            for record in batch:
                ledger.add_source(record.offset, input_hash(record.value))
        end = ends.get(receipts, 0)
        async for batch in self._read(receipts, 0, late.get(receipts, 0)):
            for record in batch:
                found = parse.receipt(record)
                if isinstance(found, str):
                    ledger.unreadable(target.receipts, record.offset, found)
                elif record.offset < end:
                    ledger.add_receipt(record.offset, found, head(record.value or b""))
                else:
                    ledger.add_late_receipt(record.offset, found, head(record.value or b""))
        await self._outcomes(ledger, number, ends)
        edges = await self._edges(ledger, number, ends, committed)
        self.account.partitions.append(judge(ledger, edges))

    async def _outcomes(self, ledger: Ledger, number: int, ends: Ends) -> None:
        decisions, audit, tolerant = TopicPartition(self.target.decisions, number), ledger.audit, ledger.chain.tolerant
        async for batch in self._read(decisions, 0, ends.get(decisions, 0)):
            for record in batch:
                if record.value is None:
                    audit.erased(DECISIONS)
                    continue
                found = parse.decision(record)
                if isinstance(found, str):
                    ledger.unreadable(decisions.topic, record.offset, found)
                    audit.found(DECISIONS, record.offset, value_digest(record.value))
                    continue
                ledger.add_decision(found)
                ledger.anchor(found, DECISIONS, value_digest(record.value), parse.content(record.value) if tolerant else 0)
                if found.call_id is not None and self.target.calls and ledger.ours(found):
                    self.calls.name(found.call_id, number, record.offset)
        if self.target.judgements:
            await self._judgements(ledger, TopicPartition(self.target.judgements, number), ends)
        dead = TopicPartition(self.target.dead_letters, number)
        async for batch in self._read(dead, 0, ends.get(dead, 0)):
            for record in batch:
                found = parse.dead_letter(record)
                if isinstance(found, str):
                    if record.value is None and not record.headers:
                        audit.erased(DEAD_LETTERS)
                        continue
                    ledger.unreadable(dead.topic, record.offset, found)
                    audit.found(DEAD_LETTERS, record.offset, letter_digest(record.value, record.headers))
                    continue
                ledger.add_dead_letter(found)
                ledger.anchor(found, DEAD_LETTERS, letter_digest(record.value, record.headers))
                if parse.altered(record, found):
                    ledger.altered(found)

    async def _judgements(self, ledger: Ledger, tp: TopicPartition, ends: Ends) -> None:
        audit, tolerant = ledger.audit, ledger.chain.tolerant
        if not audit.chained:
            return  # nothing vouches for them
        async for batch in self._read(tp, 0, ends.get(tp, 0)):
            for record in batch:
                if record.value is None:
                    audit.erased(JUDGEMENTS)
                    continue
                label = parse.judgement_label(record)
                if label is not None:
                    ledger.mislabelled(tp.topic, record.offset, label)
                if tolerant:
                    id, content = parse.judgement_id(record.value), parse.content(record.value)
                    audit.judgement(record.offset, record.value, id, content)
                else:
                    audit.judgement(record.offset, record.value, "")

    async def _calls(self, tps: list[TopicPartition]) -> None:
        """All calls of the agent. One may come a moment after its decisions: it is published beside them."""
        assert self.target.calls is not None
        at, loop = dict.fromkeys(tps, 0), asyncio.get_running_loop()
        limit = loop.time() + SETTLE_SECONDS
        while True:
            for tp, end in (await self._settled_ends(tps)).items():
                async for batch in self._read(tp, at[tp], end):
                    for record in batch:
                        found = parse.call(record)
                        if isinstance(found, str):
                            offender = Offender("unreadable", tp.topic, tp.partition, record.offset, found)
                            self.account.offenders.append(offender)
                        else:
                            self.calls.add(found)
                at[tp] = end
            if not self.calls.missing or loop.time() > limit:
                break
            await asyncio.sleep(0.2)
        trimmed = any((await self._starts(tps)).values()) or self.shapes[self.target.calls].compacted
        self.calls.close(trimmed=trimmed)
        account = self.account
        account.calls = self.calls.calls + self.calls.unchained
        for kind, partition, offset, detail in self.calls.wrong:
            account.offenders.append(Offender(kind, self.target.calls, partition, offset, detail))
        for reason, number in ((LATE_CLAIM, self.calls.late), (NO_WORKER, self.calls.strangers)):
            if number:
                account.unprovable_calls[reason] = number
        missing = self.calls.missing
        if missing and trimmed:
            account.notes.append(f"{len(missing)} calls that decisions name are gone from {self.target.calls} (retention)")
        elif missing:
            account.unprovable_calls[NO_CALL] = len(missing)
            account.notes.append("the first decisions without their call: " + ", ".join(
                f"{self.target.decisions}/{partition} offset {offset}" for partition, offset in missing[:5]))  # fmt: skip

    async def _edges(self, ledger: Ledger, number: int, ends: Ends, committed: tuple[int, str] | None) -> Edges:
        """Where the logs began once all was read: what retention removed meanwhile counts as removed."""
        target = self.target
        source, *written = (
            TopicPartition(name, number) for name in (target.source, target.decisions, target.dead_letters, target.receipts)
        )
        now = await self._starts([tp for tp in (source, *written) if tp in self.starts])
        trimmed = [now.get(tp, 0) > 0 for tp in written]
        after = await self._caught_up(source, ledger.chain.frontier, exact=not ledger.chain.tolerant)
        return Edges(
            source_start=now.get(source, 0), source_end=ends.get(source, 0),
            source_compacted=self.shapes[target.source].compacted,
            decisions_trimmed=trimmed[0],
            decisions_compacted=self.shapes[target.decisions].compacted, decisions_erased=bool(ledger.audit.nulls(DECISIONS)),
            dead_letters_trimmed=trimmed[1],
            dead_letters_compacted=self.shapes[target.dead_letters].compacted,
            dead_letters_erased=bool(ledger.audit.nulls(DEAD_LETTERS)),
            judgements_trimmed=self.target.judgements is not None and await self._trimmed(self.target.judgements, number),
            judgements_compacted=self.target.judgements is not None and self.shapes[self.target.judgements].compacted,
            receipts_trimmed=trimmed[2] or self.shapes[target.receipts].compacted,
            committed=committed[0] if committed else None, committed_after=after,
            done=decode_mark(*committed).done if committed else (),
        )  # fmt: skip

    async def _trimmed(self, topic: str, number: int) -> bool:
        tp = TopicPartition(topic, number)
        return tp in self.starts and (await self._starts([tp]))[tp] > 0

    async def _beyond(self, tp: TopicPartition, ends: Ends) -> None:
        """Outcomes in a partition that the source does not have."""
        read = parse.decision if tp.topic == self.target.decisions else parse.dead_letter
        async for batch in self._read(tp, 0, ends.get(tp, 0)):
            for record in batch:
                found = read(record)
                if isinstance(found, Outcome):
                    detail = f"the outcome of {found.topic}/{found.partition}@{found.offset} lies in partition {tp.partition}"
                    self.account.offenders.append(Offender("wrong_partition", tp.topic, tp.partition, record.offset, detail))

    # ---- broker ------------------------------------------------------------------------------------------------------------
    async def _starts(self, tps: Sequence[TopicPartition]) -> Ends:
        return dict(await self.reader.beginning_offsets(tps)) if tps else {}

    async def _settled_ends(self, tps: Sequence[TopicPartition]) -> Ends:
        """The ends as of now, after the transactions that are open now have ended (or have had `SETTLE_SECONDS` for it)."""
        if not tps:
            return {}
        loop = asyncio.get_running_loop()
        wanted = await end_offsets(self.client, tps, isolation="read_uncommitted")
        limit = loop.time() + SETTLE_SECONDS
        while True:
            stable = await end_offsets(self.client, tps)
            hidden = sum(wanted[tp] > stable[tp] for tp in tps)
            if not hidden:
                return stable
            if loop.time() > limit:
                note = f"open transactions hide the end of {hidden} partitions; what is in them is not accounted for yet"
                self.account.notes.append(note)
                return stable
            await asyncio.sleep(0.05)

    async def _committed(self, tps: Sequence[TopicPartition]) -> dict[int, tuple[int, str]]:
        """Partition number -> the group's offset and its metadata. aiokafka's public call leaves the metadata out."""
        found = await self.group._coordinator.fetch_committed_offsets(list(tps))
        return {tp.partition: (at.offset, at.metadata or "") for tp, at in found.items() if at.offset >= 0}

    async def _caught_up(self, tp: TopicPartition, frontier: int | None, *, exact: bool) -> int | None:
        """The group's offset now. Where it is one transaction with the receipts it may take a moment to show.

        Only where it does not show at once are the group's open transactions waited for: that of a dead worker may stay open
        for a minute, and a running one has nearly always one.
        """
        offset = (await self._committed([tp])).get(tp.partition, (None, ""))[0]
        if not exact or frontier is None or offset is None or offset >= frontier:
            return offset
        try:
            found = (await stable_offsets(self.group._coordinator, [tp], timeout=SETTLE_SECONDS)).get(tp)
        except TimeoutError:
            return (await self._committed([tp])).get(tp.partition, (None, ""))[0]
        return None if found is None else int(found.offset)

    async def _read(self, tp: TopicPartition, first: int, end: int) -> AsyncIterator[Sequence[ConsumerRecord]]:
        """The records of a partition in [first, end), a list at a time."""
        first = max(first, self.starts.get(tp, 0))
        if first >= end:
            return
        reader, loop = self.reader, asyncio.get_running_loop()
        reader.assign([tp])
        reader.seek(tp, first)
        moved, at, number = loop.time(), first, 0
        while at < end:
            batch = (await reader.getmany(tp, timeout_ms=500, max_records=5000)).get(tp, [])
            position = await reader.position(tp)
            if position > at:
                moved, at = loop.time(), position
            elif loop.time() - moved > STALL_SECONDS:
                raise BrokerError(f"reading {tp.topic}/{tp.partition}: no progress at offset {at} for {STALL_SECONDS:.0f} s")
            if batch and batch[-1].offset >= end:
                batch = [record for record in batch if record.offset < end]
            number += len(batch)
            if batch:
                yield batch
                self.progress(tp.topic, tp.partition, number)
